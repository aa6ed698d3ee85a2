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
  return { ...outputs, site: errors.site || null, times: errors.site ? infinite(errors.times) : null, inherited_error: errors.inherited_error };
}

/** A result in words; a dash where there is none. */
const written = (name, value) => (value === null || value === undefined ? "–" : RESULTS.find(([field]) => field === name)[2](value));

/** One statistic of a spread in words: of several prompts it is known, so that null is infinite. */
function statistic(spread, field) {
  return written(spread.quantity, spread.prompts > 1 ? infinite(spread[field]) : spread[field]);
}

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
    const told = STATISTICS.map(([field, title]) => [title, ...RESULTS.map(([name]) => (of(name) ? statistic(of(name), field) : ""))]);
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
    const bad = (value) => (share ? 1 - value : value); // the share that is changed is what is dark
    const scale = logScale(values.flat().map(bad));
    const shade = (value) => (value === undefined || value === null ? "p0" : shadeOf(scale.share(bad(value)), 1));
    const head = el("tr", {}, el("th", { scope: "col", text: "candidate" }), ...totalsOf(["mean ± s. e.", "s. d.", "least … most", "n"], "th", ...prompts.map((prompt) => el("th", { scope: "col", class: "right", text: prompt.name, title: prompt.text.slice(0, 300) }))));
    const rows = candidates.map((candidate, row) => {
      const cells = values[row].map((value, at) => {
        const button = el("button", { type: "button", class: `heat ${shade(value)}`, "aria-label": `${candidate.name}, ${prompts[at].name}: ${written(name, value)}`, text: written(name, value) });
        button.addEventListener("click", () => choose(row, at));
        return el("td", { class: "right" }, button);
      });
      const spread = candidate.spread.find((each) => each.quantity === name);
      const of = (field) => (spread ? statistic(spread, field) : "–");
      const error = spread && spread.prompts > 1 ? ` ± ${of("standard_error")}` : "";
      const totals = [of("mean") + error, of("deviation"), spread ? `${of("least")} … ${of("most")}` : "–", spread ? spread.prompts : 0];
      return el("tr", {}, el("th", { scope: "row", text: candidate.name }), ...totalsOf(totals, "td", ...cells));
    });
    holder.replaceChildren(el("table", { class: "matrix" }, el("thead", {}, head), el("tbody", {}, ...rows)));
  }
  /** Cells of one row: the mean stands first, so that many prompts do not push it out of sight, and the rest of the totals last. */
  function totalsOf([mean, ...rest], tag, ...cells) {
    const total = (text) => el(tag, { class: "right total", scope: tag === "th" ? "col" : null, text });
    return [total(mean), ...cells, ...rest.map(total)];
  }
  draw("mean_kld");
  const choice = chooser("number", quantities.map(([name, title]) => [name, title]), "mean_kld", draw);
  return section("matrix", "Candidates × prompts", "a cell opens the candidate on that prompt", choice, holder);
}
