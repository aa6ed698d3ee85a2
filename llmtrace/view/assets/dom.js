// Elements, numbers and packed arrays. Text is placed with textContent and never as markup.

const SVG = "http://www.w3.org/2000/svg";
const LEVELS = 32;

/** An element; `text` is its text, other keys are attributes, null ones are left out. */
function el(name, attributes = {}, ...children) {
  return build(document.createElement(name), attributes, children);
}

/** The same for SVG. */
function svg(name, attributes = {}, ...children) {
  return build(document.createElementNS(SVG, name), attributes, children);
}

function build(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "text") node.textContent = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** A token as it stands in the prompt: its own direction, its marks faint. */
function tokenText(token, longest = Infinity) {
  const bare = token.runs.every((run, place) => place % 2 || !run);
  const node = el("bdi", { class: bare ? "text bare" : "text" });
  let left = longest;
  token.runs.forEach((run, place) => {
    const letters = [...run];
    if (!letters.length || left <= 0) return;
    const shown = letters.length > left ? letters.slice(0, left).join("") + "…" : run;
    left -= letters.length;
    node.append(place % 2 ? el("i", { class: "mark", text: shown }) : document.createTextNode(shown));
  });
  if (!node.childNodes.length) node.append(el("i", { class: "mark", text: "∅" }));
  return node;
}

/** A number for reading: a real minus, `digits` significant ones; a dash where there is none. */
function num(value, digits = 3, signed = false) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size === Infinity) return value < 0 ? "−∞" : signed ? "+∞" : "∞";
  const plain = size >= 10 ** digits - 0.5 ? size.toFixed(0) : size.toPrecision(digits);
  const text = size >= 1e-4 && size < 1e6 ? plain : size.toExponential(digits - 1);
  return (value < 0 ? "−" : signed ? "+" : "") + text;
}

/** The bytes of a base64 text. */
function decode(data) {
  const raw = atob(data);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new DataView(bytes.buffer);
}

/** Little-endian float32, or whole numbers of 1/units where `units` says so (one more than that: not finite). */
function numbers(data, units) {
  const view = decode(data);
  const size = units ? 2 : 4;
  const values = new Float32Array(view.byteLength / size);
  for (let i = 0; i < values.length; i++) {
    const whole = units ? view.getUint16(2 * i, true) : 0;
    values[i] = !units ? view.getFloat32(4 * i, true) : whole > units ? NaN : whole / units;
  }
  return values;
}

/** A packed array: `at(row, column)` for two axes, `values` for all. */
function unpack(grid) {
  if (!grid) return null;
  const values = numbers(grid.data);
  const [rows, columns = 1] = grid.shape;
  return { rows, columns, values, at: (row, column) => values[row * columns + column] };
}

/** Rows of a causal matrix, by query position: `row(q)` has one number a token, or is null where it was left out. */
function unpackTriangle(packed, tokens) {
  if (!packed) return null;
  const values = numbers(packed.data, packed.units);
  const start = new Map();
  let offset = 0;
  for (const query of packed.queries) {
    start.set(query, offset);
    offset += query + 1;
  }
  return {
    first: packed.queries[0],
    row(query) {
      if (!start.has(query)) return null;
      const out = new Float32Array(tokens);
      out.set(values.subarray(start.get(query), start.get(query) + query + 1));
      return out;
    },
  };
}

/** How strong a number is beside the strongest, as the class of its shade: `p0` … `p32`, `n1` … `n32`;
 *  in proportion, so that what is nearly nothing has none. */
function shadeOf(value, top) {
  if (!(top > 0) || !value || Number.isNaN(value)) return "p0";
  const level = Math.min(LEVELS, Math.round((Math.abs(value) / top) * LEVELS));
  return (value < 0 && level ? "n" : "p") + level;
}

/** The largest absolute value; 0 of nothing. */
function strongest(values) {
  let top = 0;
  for (const value of values) if (Math.abs(value) > top) top = Math.abs(value);
  return top;
}

/** A titled part of the page. */
function section(name, title, note, ...children) {
  const heading = el("h2", { text: title });
  return el("section", { class: name, "aria-label": title }, el("header", {}, heading, note ? el("p", { text: note }) : null), ...children);
}
