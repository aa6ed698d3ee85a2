// Candidates × prompts, and one candidate prompt by prompt; how far prompts differ.

const RESULTS = [
  ["tokens", "predictions", (value) => String(value)], ["mean_kld", "mean KLD, nats", (value) => errorText(value, 3)], ["worst_kld", "worst KLD", (value) => errorText(value, 3)],
  ["same_top", "same top", percent], ["largest_shift", "largest shift", (value) => percent(value, 2)], ["times", "× rounding", timesText],
  ["site", "at", (value) => value], ["inherited_error", "inherited by the end", errorText],
];
const STATISTICS = [["mean", "mean"], ["deviation", "standard deviation"], ["standard_error", "standard error of the mean"], ["least", "least"], ["most", "most"]];

/** Results of one candidate on one prompt, whatever record they stand in. */
function resultOf(candidate, prompt) {
  const outputs = candidate.outputs.find((each) => each.prompt === prompt) || {};
  const errors = candidate.by_prompt.find((each) => each.prompt === prompt) || {};
  const infinite = (value) => (value === null ? Infinity : value);
  return { ...outputs, site: errors.site || null, times: errors.site ? infinite(errors.times) : null, inherited_error: errors.inherited_error };
}

const written = (name, value) => (value === null || value === undefined ? "–" : RESULTS.find(([field]) => field === name)[2](value));

/** One candidate: a row a prompt, and what they come to; `choose(prompt)` is called for one. */
function promptTable(candidate, prompts, choose) {
  const rows = prompts.map((prompt, at) => {
    const result = resultOf(candidate, at);
    const button = el("button", { type: "button", class: "link", text: prompt.name, title: prompt.text.slice(0, 300) });
    button.addEventListener("click", () => choose(at));
    return [button, ...RESULTS.map(([name]) => (name === "site" && result.site ? el("code", { text: result.site }) : written(name, result[name])))];
  });
  const right = RESULTS.map(([name], at) => (name === "site" ? 0 : at + 1)).filter(Boolean);
  const node = table(["prompt", ...RESULTS.map(([, title]) => title)], rows, right);
  if (prompts.length > 1 && candidate.spread.length) {
    const of = (name) => candidate.spread.find((each) => each.quantity === name);
    const told = STATISTICS.map(([field, title]) => [title, ...RESULTS.map(([name]) => (of(name) ? written(name, of(name)[field]) : ""))]);
    const foot = table([], told, right).querySelector("tbody");
    node.append(el("tfoot", {}, ...foot.children));
  }
  return section("prompts", "Prompt by prompt", prompts.length > 1 ? `each of ${prompts.length} prompts counts once` : "", el("div", { class: "scroll" }, node));
}

/** Candidates × prompts by one quantity; `choose(candidate, prompt)` is called for a cell. */
function matrixView(candidates, prompts, choose) {
  const holder = el("div", { class: "scroll" });
  const quantities = RESULTS.filter(([name]) => name !== "site" && name !== "tokens");
  function draw(name) {
    const values = candidates.map((candidate) => prompts.map((_, at) => resultOf(candidate, at)[name]));
    const share = name === "same_top";
    const scale = logScale(values.flat().map((value) => (share && value !== undefined && value !== null ? 1 - value : value)));
    const shade = (value) => (value === undefined || value === null ? "p0" : shadeOf(scale.share(share ? 1 - value : value), 1));
    const head = el("tr", {}, el("th", { scope: "col", text: "candidate" }), ...prompts.map((prompt) => el("th", { scope: "col", class: "right", text: prompt.name, title: prompt.text.slice(0, 300) })),
      ...["mean ± s. e.", "s. d.", "least … most", "n"].map((text) => el("th", { scope: "col", class: "right total", text })));
    const rows = candidates.map((candidate, row) => {
      const cells = values[row].map((value, at) => {
        const button = el("button", { type: "button", class: `heat ${shade(value)}`, "aria-label": `${candidate.name}, ${prompts[at].name}: ${written(name, value)}`, text: written(name, value) });
        button.addEventListener("click", () => choose(row, at));
        return el("td", { class: "right" }, button);
      });
      const spread = candidate.spread.find((each) => each.quantity === name);
      const totals = spread
        ? [spread.standard_error === null ? written(name, spread.mean) : `${written(name, spread.mean)} ± ${written(name, spread.standard_error)}`, written(name, spread.deviation), `${written(name, spread.least)} … ${written(name, spread.most)}`, spread.prompts]
        : ["–", "–", "–", 0];
      return el("tr", {}, el("th", { scope: "row", text: candidate.name }), ...cells, ...totals.map((text) => el("td", { class: "right total", text })));
    });
    holder.replaceChildren(el("table", { class: "matrix" }, el("thead", {}, head), el("tbody", {}, ...rows)));
  }
  draw("mean_kld");
  const choice = chooser("number", quantities.map(([name, title]) => [name, title]), "mean_kld", draw);
  return section("matrix", "Candidates × prompts", "a cell opens the candidate on that prompt", choice, holder);
}
