// A heat map as vector graphics: one path for each shade, so that a hundred thousand cells stay quick. Negative cells carry a dash,
// cells without a value a slant, so that it reads in black and white.

const GUTTER = 132;

/** Cells [row column]: `value(row, column)`, `rowLabel(row)` a token or text, `describe(row, column)` the rows of the card.
 *  `choose(row, column)`, where it is given, is called on click and Enter; `flag(row, column)` says which cells carry a point, `ticks` are
 *  the columns that have a label, with it, and `start` is where the keyboard begins. The node's `mark(row, column)` outlines another cell. */
function heatMap({ rows, columns, value, top, rowLabel, columnLabel = String, columnTitle, describe, label, choose = null, width, height, mark = null, title, flag = null, ticks = null, start = null }) {
  const every = Math.max(1, Math.ceil(13 / height));
  const tick = columns * width < 60 ? 1 : [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((step) => step * width >= 26) || 2000;
  const high = rows * height, wide = columns * width;
  const gap = Math.min(width, height) >= 7 ? 1 : 0;
  const root = svg("svg", {
    class: choose ? "map choosable" : "map", width: GUTTER + wide + 8, height: high + 20, viewBox: `0 0 ${GUTTER + wide + 8} ${high + 20}`,
    role: "application", "aria-roledescription": "heat map", "aria-label": label, tabindex: "0",
  });
  const shades = new Map();
  const dashes = new Map();
  const points = new Map();
  let missing = "";
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const number = value(row, column);
      const x = GUTTER + column * width, y = row * height, w = width - gap, h = height - gap;
      if (number === undefined) continue;
      if (number === null || Number.isNaN(number)) {
        missing += `M${x + 2} ${y + h - 2}L${x + w - 2} ${y + 2}`;
        continue;
      }
      const shade = shadeOf(number, top);
      shades.set(shade, (shades.get(shade) || "") + `M${x} ${y}h${w}v${h}h${-w}z`);
      if (flag && flag(row, column)) points.set(shade, (points.get(shade) || "") + `M${x + w / 2} ${y + h / 2}h0`);
      if (number < 0 && gap && Number(shade.slice(1)) > 1) {
        dashes.set(shade, (dashes.get(shade) || "") + `M${x + w / 2 - 2.5} ${y + h / 2}h5`);
      }
    }
  }
  for (const [shade, path] of shades) root.append(svg("path", { class: shade, d: path }));
  for (const [shade, path] of dashes) root.append(svg("path", { class: `dash ${shade}`, d: path }));
  for (const [shade, path] of points) root.append(svg("path", { class: `flag ${shade}`, d: path }));
  root.append(svg("path", { class: "none", d: missing }));
  for (let row = 0; row < rows; row += every) {
    root.append(rowName(rowLabel(row), GUTTER - 8, (row + 0.5) * height - gap / 2));
  }
  const regular = Array.from({ length: Math.ceil(columns / tick) }, (_, at) => [at * tick, columnLabel(at * tick)]);
  for (const [column, text] of ticks || regular) {
    root.append(svg("text", { class: "axis", x: GUTTER + (column + 0.5) * width - gap / 2, y: high + 13, "text-anchor": "middle", text }));
  }
  root.append(svg("text", { class: "axis", x: GUTTER - 8, y: high + 13, "text-anchor": "end", text: columnTitle }));
  let marked = null;
  function outlineAt(row, column) {
    if (marked) marked.remove();
    marked = svg("g", {}, outline(row, column, "halo"), outline(row, column, "mark"));
    root.append(marked);
    at = [row, column];
  }
  const cursor = outline(0, 0, "cursor");
  cursor.style.display = "none";
  root.append(cursor);

  function outline(row, column, name) {
    return svg("rect", { class: name, x: GUTTER + column * width - 1, y: row * height - 1, width: width - gap + 2, height: height - gap + 2, rx: 1.5 });
  }
  let at = mark || start || [0, 0];
  if (mark) outlineAt(...mark);
  function point(row, column, aloud) {
    at = [row, column];
    cursor.setAttribute("x", GUTTER + column * width - 1);
    cursor.setAttribute("y", row * height - 1);
    cursor.style.display = "";
    const name = title(row, column), details = describe(row, column);
    showTip(cursor.getBoundingClientRect(), name, details);
    if (aloud) spoken.textContent = [name.textContent || name, ...details.map(([what, value]) => `${what} ${value.textContent || value}`)].join(", ");
  }
  function leave() {
    cursor.style.display = "none";
    hideTip();
  }
  function cellOf(event) {
    const box = root.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - GUTTER) / width), row = Math.floor((event.clientY - box.top) / height);
    const inside = row >= 0 && row < rows && column >= 0 && column < columns && value(row, column) !== undefined;
    return inside ? [row, column] : null;
  }
  /** The next cell in a direction; where a row above or below has none there, its nearest. */
  function beside(down, right) {
    for (let [row, column] = [at[0] + down, at[1] + right]; row >= 0 && row < rows && column >= 0 && column < columns; row += down, column += right) {
      const nearest = down ? [...Array(columns).keys()].sort((a, b) => Math.abs(a - column) - Math.abs(b - column)) : [column];
      const found = nearest.find((other) => value(row, other) !== undefined);
      if (found !== undefined) return [row, found];
    }
    return null;
  }
  root.addEventListener("pointermove", (event) => {
    const cell = cellOf(event);
    if (cell) point(...cell, false);
    else leave();
  });
  root.addEventListener("pointerleave", leave);
  root.addEventListener("focus", () => root.matches(":focus-visible") && point(...at, true));
  root.addEventListener("blur", leave);
  root.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (event.key in steps) {
      const next = beside(...steps[event.key]);
      if (next) point(...next, true);
    } else if (choose && (event.key === "Enter" || event.key === " ")) choose(...at);
    else return;
    event.preventDefault();
  });
  if (choose) root.addEventListener("click", (event) => cellOf(event) && choose(...cellOf(event)));
  const node = el("div", { class: "scroll" }, root);
  node.mark = outlineAt;
  return node;
}

/** The name of a row: a token with its marks, or plain text. */
function rowName(name, x, y) {
  const text = svg("text", { class: "row", x, y, "text-anchor": "end", "dominant-baseline": "central" });
  if (typeof name === "string") text.textContent = name;
  else {
    const numbered = name.position !== undefined;
    let left = numbered ? 11 : 14;
    name.runs.forEach((run, place) => {
      const letters = [...run];
      if (!letters.length || left <= 0) return;
      text.append(svg("tspan", { class: place % 2 ? "mark" : "text", text: letters.slice(0, left).join("") + (letters.length > left ? "…" : "") }));
      left -= letters.length;
    });
    if (numbered) text.append(svg("tspan", { class: "place", text: `\u2002${name.position}` }));
  }
  return text;
}

/** What the shades mean, with the unit; both signs where there are both. */
function legend(top, signed, unit) {
  const bar = el("span", { class: "ramp", "aria-hidden": "true" });
  for (let level = signed ? -LEVELS : 0; level <= LEVELS; level += 4) bar.append(el("span", { class: level < 0 ? `n${-level}` : `p${level}` }));
  return el("p", { class: "legend" }, el("span", { text: signed ? num(-top) : "0" }), bar, el("span", { text: num(top) }), el("span", { class: "unit", text: unit }));
}
