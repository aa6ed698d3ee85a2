// The lens: what each point of the stream would predict.

/** What each point of the stream would predict: the target's probability and rank, and the best tokens. */
function lensTable(lens) {
  const wanted = lens.target ? lens.target.text : null;
  const count = Math.max(0, ...lens.points.map((point) => point.top.length));
  const half = lens.points.map((point) => /\.resid_mid$/.test(point.site));
  const rows = lens.points.map((point) => {
    const bar = el("span", { class: shadeOf(point.probability, 1) });
    bar.style.width = `${100 * (point.probability || 0)}%`;
    bar.hidden = !(point.probability > 0.004);
    const tops = Array.from({ length: count }, (_, at) => {
      if (!point.top[at]) return "";
      const [token, probability] = point.top[at];
      const same = token.text === wanted && (lens.target.id === undefined || token.id === undefined || token.id === lens.target.id);
      const name = same ? `lens ${shadeOf(probability, 1)} same` : `lens ${shadeOf(probability, 1)}`;
      const cell = el("span", { class: name, tabindex: "0", "aria-label": `${token.text} ${num(probability)}` }, tokenText(token, 12));
      const show = () => showTip(cell.getBoundingClientRect(), tokenText(token), lensCard(point, token, probability, at));
      for (const event of ["pointerenter", "focus"]) cell.addEventListener(event, show);
      for (const event of ["pointerleave", "blur"]) cell.addEventListener(event, hideTip);
      return cell;
    });
    return [shortSite(point.site), point.ranks, el("span", { class: "track" }, bar), num(point.probability), ...tops];
  });
  const headings = ["layer", "rank", "", "probability", "most likely", ...Array(Math.max(0, count - 1)).fill("")];
  const grid = table(headings, rows, [0, 1, 3]);
  grid.querySelectorAll("tbody tr").forEach((row, at) => row.classList.toggle("half", half[at]));
  const wide = el("div", { class: rows.length > 160 ? "scroll" : "wide" }, grid);
  if (!half.includes(true)) return wide;
  const box = el("input", { type: "checkbox" });
  box.addEventListener("change", () => grid.classList.toggle("whole", box.checked));
  return el("div", {}, el("label", { class: "option" }, box, "with the points between attention and MLP"), wide);
}

function lensCard(point, token, probability, at) {
  const rows = [["site", point.site], ["place", String(at + 1)], ["probability", num(probability, 5)], ["text", token.text]];
  return rows.concat(token.id === undefined ? [] : [["id", String(token.id)]], token.bytes ? [["bytes", token.bytes]] : []);
}

/** `blocks.3.resid_post` is 3, the stream after that block; `blocks.3.resid_mid` is 3 mid; what enters the first block is `in`. */
function shortSite(site) {
  const found = /^blocks\.(\d+)\.resid_(pre|mid|post)$/.exec(site);
  if (!found) return site;
  return found[2] === "post" ? found[1] : found[2] === "mid" ? `${found[1]} mid` : Number(found[1]) ? `${found[1]} pre` : "in";
}

/** The target's rank after each block, on a logarithmic scale with 1 on top, along the same layer axis as the maps. */
function rankSection(lens, width) {
  const points = lens.points.map((point) => [/^blocks\.(\d+)\.resid_post$/.exec(point.site), point]).filter(([found, point]) => found && point.rank);
  if (points.length < 2 || !lens.target) return [];
  const layers = Math.max(...points.map(([found]) => Number(found[1]))) + 1;
  const decades = Math.max(1, Math.ceil(Math.log10(Math.max(...points.map(([, point]) => point.rank)))));
  const high = 22 * decades, wide = layers * width;
  const root = svg("svg", {
    class: "map ranks", width: GUTTER + wide + 8, height: high + 30, viewBox: `0 -8 ${GUTTER + wide + 8} ${high + 30}`,
    role: "img", "aria-label": `Rank of ${lens.target.text} after each layer: ${points.map(([, point]) => point.rank).join(", ")}`,
  });
  const y = (rank) => (Math.log10(rank) / decades) * high;
  const x = (found) => GUTTER + (Number(found[1]) + 0.5) * width - 0.5;
  for (let decade = 0; decade <= decades; decade++) {
    root.append(svg("path", { class: "rule", d: `M${GUTTER} ${y(10 ** decade)}h${wide}` }));
    root.append(svg("text", { class: "axis", x: GUTTER - 8, y: y(10 ** decade), "text-anchor": "end", "dominant-baseline": "central", text: (10 ** decade).toLocaleString("en") }));
  }
  root.append(svg("path", { class: "line", d: points.map(([found, point], at) => `${at ? "L" : "M"}${x(found)} ${y(point.rank)}`).join("") }));
  for (const [found, point] of points) {
    const dot = svg("circle", { class: point.ranks === "1" ? "dot first" : "dot", cx: x(found), cy: y(point.rank), r: 3.4 });
    const best = point.top[0];
    const rows = [["rank", point.ranks], ["probability", num(point.probability, 5)], ...(best ? [["most likely", tokenText(best[0])]] : [])];
    dot.addEventListener("pointerenter", () => showTip(dot.getBoundingClientRect(), point.site, rows));
    dot.addEventListener("pointerleave", hideTip);
    root.append(dot);
  }
  const tick = layers * width < 60 ? 1 : [1, 2, 5, 10, 20, 50, 100].find((step) => step * width >= 26) || 200;
  for (let layer = 0; layer < layers; layer += tick) {
    root.append(svg("text", { class: "axis", x: GUTTER + (layer + 0.5) * width - 0.5, y: high + 19, "text-anchor": "middle", text: layer }));
  }
  root.append(svg("text", { class: "axis", x: GUTTER - 8, y: high + 19, "text-anchor": "end", text: "layer" }));
  const part = section("ranks", "Lens", "", el("div", { class: "scroll" }, root));
  part.querySelector("header").append(el("p", {}, "rank of ", quote(lens.target), " if the stream ended after the layer"));
  return [part];
}

function lensSection(lens) {
  const target = lens.target ? el("p", { class: "of" }, "target ", quote(lens.target), lens.position === null ? "" : ` at position ${lens.position}`) : null;
  return section("lens", "Lens, point by point", "what each point of the stream would predict", target, lensTable(lens));
}

/** A page that holds a lens and no influence. */
function lensPage(root, lens) {
  const heading = el("h1", {}, "What the stream would predict", lens.position === null || lens.position === undefined ? "" : ` at position ${lens.position}`);
  const prompt = el("p", { class: "prompt plain" }, ...lens.tokens.map((token) => tokenText(token)));
  const made = { facts: lens.facts, warnings: lens.warnings };
  root.append(heading, prompt, noteList(made), lensSection(lens), tip, spoken);
}
