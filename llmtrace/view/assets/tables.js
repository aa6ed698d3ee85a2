// Tables and bars: parts of the target that no token is credited with, strongest heads, named head scores.

/** A table with a caption; `right` are the columns of numbers. */
function table(headings, rows, right = []) {
  const place = (tag, cells) => el("tr", {}, ...cells.map((cell, at) => {
    const node = el(tag, { class: right.includes(at) ? "right" : null, scope: tag === "th" ? "col" : null });
    node.append(typeof cell === "object" && cell ? cell : document.createTextNode(cell ?? "–"));
    return node;
  }));
  return el("table", {}, el("thead", {}, place("th", headings)), el("tbody", {}, ...rows.map((row) => place("td", row))));
}

/** Signed bars on one scale, from a line in the middle where there are both signs. */
function bars(pairs) {
  const top = strongest(pairs.map(([, value]) => value)) || 1;
  const signed = pairs.some(([, value]) => value < 0);
  const rows = pairs.map(([name, value]) => {
    const bar = el("span", { class: shadeOf(value, top) });
    bar.style.width = `${(100 * Math.abs(value)) / top / (signed ? 2 : 1)}%`;
    bar.style.left = `${signed ? 50 - (value < 0 ? (50 * -value) / top : 0) : 0}%`;
    return [name, el("span", { class: signed ? "track signed" : "track" }, bar), num(value, 4, signed)];
  });
  return table(["part", "", "score"], rows, [2]);
}

/** The strongest cells of the layers × heads map. */
function strongHeads(grid, count) {
  const all = [];
  for (let layer = 0; layer < grid.rows; layer++) {
    for (let head = 0; head < grid.columns; head++) {
      const value = grid.at(layer, head);
      if (!Number.isNaN(value)) all.push([layer, head, value]);
    }
  }
  all.sort((a, b) => Math.abs(b[2]) - Math.abs(a[2]) || a[0] - b[0] || a[1] - b[1]);
  const signed = all.some(([, , value]) => value < 0);
  return table(["layer", "head", "score"], all.slice(0, count).map(([layer, head, value]) => [layer, head, num(value, 3, signed)]), [0, 1, 2]);
}

/** Named scores of heads, best first within each name; what lies beyond the best is folded away. */
function headTable(scores) {
  const best = 6;
  const names = [...new Set(scores.map((row) => row.name))];
  const chance = (row) => (row.chance === null ? "–" : num(row.chance));
  return names.map((name) => {
    const rows = scores.filter((row) => row.name === name).sort((a, b) => (b.score ?? -1) - (a.score ?? -1) || a.layer - b.layer || a.head - b.head);
    if (!rows.some((row) => row.score !== null)) {
      return el("div", { class: "named" }, el("h3", { text: name }), el("p", { text: "no eligible row in this prompt" }));
    }
    const cells = rows.map((row) => [row.layer, row.head, num(row.score), chance(row), row.rows]);
    const build = (part) => table(["layer", "head", "score", "chance", "eligible rows"], part, [0, 1, 2, 3, 4]);
    const more = cells.length > best ? el("details", {}, el("summary", { text: `${cells.length - best} more heads` }), build(cells.slice(best))) : null;
    return el("div", { class: "named" }, el("h3", { text: name }), build(cells.slice(0, best)), more);
  });
}

