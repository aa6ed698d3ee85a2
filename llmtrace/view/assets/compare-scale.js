// Errors on a logarithmic scale: how they are written, which shade they have, what the shades mean.

const DECADES = 6; // at most so many have shades of their own; what is smaller has none

/** An error for reading: two digits and a power of ten where there is one, a real minus; ∞ for what cannot be compared, a dash for what is not
 *  known. */
function errorText(value, digits = 2) {
  if (value === undefined || value === null || Number.isNaN(value)) return "–";
  if (value === Infinity) return "∞";
  if (value === 0) return "0";
  const text = value >= 1 && value < 100 ? value.toPrecision(digits) : value.toExponential(digits - 1);
  return text.replace("+", "").replaceAll("-", "−");
}

/** How many times: plain where that is short. */
function timesText(value, digits = 2) {
  return value >= 0.01 && value < 1e4 ? num(value, digits) : errorText(value, digits);
}

/** JSON has null for what is infinite. */
function infinite(value) {
  return value === null ? Infinity : value;
}

/** A share as per cent, one digit after the point. */
function percent(value, digits = 1) {
  return value === null || value === undefined ? "–" : `${(100 * value).toFixed(digits)} %`;
}

/** How many layers some sites span. */
function layersOf(sites) {
  return Math.max(0, ...sites.map((site) => (site.layer === null ? 0 : site.layer + 1)));
}

/** Pixels that a layer's column is wide, in a map and in the curves below it, with a column before the first and one after the last. */
function columnWidth(layers) {
  return Math.max(6, Math.min(24, Math.floor(440 / (layers + 2))));
}

function judged(site) {
  return site.status !== "unchecked" && site.status !== "unavailable";
}

/** A site's local error; null where it was not judged. */
function localOf(site) {
  return judged(site) ? infinite(site.local_error) : null;
}

/** How many times what rounding explains: infinite where nothing is allowed, or where nothing can be compared; null where it was not judged. */
function timesOf(site) {
  const error = localOf(site);
  if (error === null) return null;
  return site.tolerance ? error / site.tolerance : error ? Infinity : 0;
}

/** Beyond what rounding explains, by the reference's weights. */
function beyond(site) {
  return site.status === "violated" || site.status === "explained";
}

/** A scale over some numbers, whole decades: `share(value)` is 0 … 1. */
function logScale(values, least = null) {
  const real = values.filter((value) => value > 0 && value !== Infinity);
  const top = real.length ? Math.ceil(Math.log10(Math.max(...real)) - 1e-9) : 0;
  const low = real.length ? Math.floor(Math.log10(Math.min(...real)) + 1e-9) : -1;
  const bottom = Math.min(top - 1, Math.max(low, least === null ? top - DECADES : least));
  return {
    bottom, top,
    share(value) {
      if (!(value > 0)) return 0;
      return Math.max(0, Math.min(1, (Math.log10(value) - bottom) / (top - bottom)));
    },
  };
}

/** `10`, with the exponent raised. */
function power(exponent) {
  const digits = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
  const raised = [...String(exponent)].map((character) => digits[character]).join("");
  return exponent === 0 ? "1" : exponent === 1 ? "10" : `10${raised}`;
}

/** Of some errors, what a logarithmic axis cannot place: zeros are left out, infinite ones stand at its upper edge. */
function offScale(values) {
  const told = [[0, "not drawn"], [Infinity, "at the upper edge"]].map(([value, where]) => [values.filter((each) => each === value).length, errorText(value), where]);
  return told.filter(([count]) => count).map(([count, text, where]) => el("span", { class: "key", text: `${count} at ${text}: ${where}` }));
}

/** What the shades of a logarithmic scale mean, and what else the map shows. */
function logLegend(scale, unit, keys = []) {
  const bar = el("span", { class: "ramp", "aria-hidden": "true" });
  for (let level = 0; level <= LEVELS; level += 2) bar.append(el("span", { class: `p${level}` }));
  return el("div", {}, el("p", { class: "legend" }, el("span", { text: power(scale.bottom) }), bar, el("span", { text: power(scale.top) }), el("span", { class: "unit", text: unit })),
    el("p", { class: "legend" }, ...keys.map(([sign, text]) => el("span", { class: "key" }, el("b", { "aria-hidden": "true", text: sign }), ` ${text}`))));
}

/** A row of buttons of which one is pressed; `choose(value)` is called with its value. */
function toggles(label, options, chosen, choose) {
  const node = el("div", { class: "toggles", role: "group", "aria-label": label });
  const buttons = options.map(([value, text]) => {
    const button = el("button", { type: "button", "aria-pressed": String(value === chosen), text });
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      choose(value);
    });
    return button;
  });
  node.append(...buttons);
  return node;
}

/** A labelled list to choose from. */
function chooser(label, options, chosen, choose) {
  const list = el("select", { "aria-label": label }, ...options.map(([value, text]) => el("option", { value, text })));
  list.value = String(chosen);
  list.addEventListener("change", () => choose(list.value));
  return el("label", { class: "option" }, label, list);
}
