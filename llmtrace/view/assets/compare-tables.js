// What differs besides signals: faults with their causes, tokens, settings, tensors, experts, who is right.

/** Every kind of site that diverges; `choose(site name)` is called for one. */
function faultTable(candidate, prompts, choose) {
  if (!candidate.divergences.length) return null;
  const several = prompts.length > 1;
  const rows = candidate.divergences.map((fault) => {
    const button = el("button", { type: "button", class: "link", text: fault.site });
    button.addEventListener("click", () => choose(fault.site));
    return [button, blockList(fault.layers), ...(several ? [prompts[fault.prompt].name] : []), errorText(infinite(fault.local_error)), errorText(fault.tolerance), errorText(fault.own_error), errorText(fault.inherited_error), causeOf(fault)];
  });
  const note = `in dataflow order: the first is where a fault entered${several ? "; numbers are of the first prompt that shows it" : ""}`;
  const heads = ["site", "blocks", ...(several ? ["prompt"] : []), "local", "rounding", "own weights", "inherited", "why"];
  return section("faults", "Where it diverges, and why", note, el("div", { class: "scroll" }, table(heads, rows, [...heads.keys()].slice(-5, -1))));
}

const KINDS = {
  code: "the candidate computes something else", weights: "its weights are others", format: "worse than its format explains",
  unknown: "its weights cannot be read", reference: "the reference is at fault",
};

/** Why it diverges: what explains it, what that leaves of the error, and how many explanations were tried. */
function causeOf(fault) {
  const { cause, factor } = fault;
  const count = fault.tried.reduce((sum, each) => sum + each.count, 0);
  const rest = [
    KINDS[fault.kind], cause && `${cause.name}: ${errorText(infinite(cause.before))} → ${errorText(infinite(cause.after))}`,
    count && `${count} explanation${count === 1 ? "" : "s"} tried`, factor && `factor ${factor}`, cause && cause.harmless && "harmless in this run",
  ];
  return el("div", { class: "why" }, el("b", { text: cause ? cause.words : fault.reason || "unexplained" }), el("span", { class: "of", text: ` · ${rest.filter(Boolean).join("; ")}` }));
}

/** The hypotheses that were tried at a fault, what left least first. */
function triedTable(fault) {
  if (!fault.tried.length) return null;
  const rows = fault.tried.map((each) => {
    const of = each.count > 1 ? el("span", { class: "of", text: ` · nearest of ${each.count}` }) : null;
    return [el("code", { text: each.name }), el("span", { class: "why", text: each.words }, of), errorText(infinite(each.left))];
  });
  const heads = ["hypothesis", "explanation", "left"];
  return el("details", { class: "tried", open: true }, el("summary", { text: "hypotheses tried, by the error that each leaves" }), el("div", { class: "scroll" }, table(heads, rows, [2])));
}

/** `0 … 29`, `3`, `0, 4, 7 and 3 more`, as the command line says it. */
function blockList(layers) {
  const last = layers[layers.length - 1];
  return layers.length > 2 && last - layers[0] === layers.length - 1 ? `${layers[0]} … ${last}` : firstThree(layers);
}

function firstThree(names) {
  return names.slice(0, 3).join(", ") + (names.length > 3 ? ` and ${names.length - 3} more` : "");
}

/** Texts that both tokenizers read otherwise. */
function tokenTable(candidate, prompts) {
  if (!candidate.tokens.length) return null;
  const shown = (token) => (token ? el("span", { class: "chip" }, tokenText(token, 20)) : "nothing more");
  const short = (text) => [...text].slice(0, 24).join("") + ([...text].length > 24 ? "…" : "");
  const rows = candidate.tokens.map((each) => [
    each.prompt === null ? el("span", { text: `not run: ${short(each.text)}`, title: each.text }) : prompts[each.prompt].name, each.index, each.byte, shown(each.reference), shown(each.candidate), each.what,
  ]);
  return section("differences", "Tokens that are read otherwise", "the first of each prompt; numbers are compared on the reference’s tokens", el("div", { class: "scroll" },
    table(["prompt", "token", "byte", "reference", "candidate", "what"], rows, [1, 2])));
}

/** What the candidate's own files say otherwise. */
function specTable(candidate) {
  if (!candidate.spec.length) return null;
  const rows = candidate.spec.map((each) => [el("code", { text: each.field }), each.reference, each.candidate, blockList(each.blocks)]);
  return section("spec", "Its files say otherwise", "", el("div", { class: "scroll" }, table(["setting", "reference", "candidate", "blocks"], rows)));
}

/** Weights, those that no format explains first, then by how much of what their format costs they take. */
function tensorTable(candidate) {
  if (!candidate.tensors.length) return null;
  const over = (tensor) => (tensor.expected ? infinite(tensor.relative_error) / tensor.expected : infinite(tensor.relative_error) ? Infinity : 0);
  const tensors = [...candidate.tensors].sort((a, b) => a.explained - b.explained || over(b) - over(a) || infinite(b.relative_error) - infinite(a.relative_error));
  const wrong = tensors.filter((tensor) => !tensor.explained).length;
  const row = (tensor) => [
    el("code", { text: tensor.name }), tensor.stored, errorText(infinite(tensor.relative_error)), errorText(tensor.expected), tensor.expected ? num(over(tensor), 2) : "–",
    errorText(tensor.median), tensor.explained ? tensor.what : el("span", {}, el("b", { text: "▲ not explained" }), tensor.what ? `: ${tensor.what}` : ""),
  ];
  const build = (some) => el("div", { class: "scroll" }, table(["weight", "stored as", "error", "its format costs", "× that", "median of its kind", ""], some.map(row), [2, 3, 4, 5]));
  const other = tensors.filter((tensor) => tensor.relative_error !== 0).length;
  const first = Math.max(Math.min(8, other), wrong);
  const rest = tensors.length > first ? el("details", {}, el("summary", { text: first ? `${tensors.length - first} more` : `all ${tensors.length}` }), build(tensors.slice(first))) : null;
  return section("tensors", "Weights", `${tensors.length} compared, ${other ? `${wrong || "none"} not explained by ${wrong === 1 ? "its" : "their"} format` : "all the reference’s own"}`,
    first ? build(tensors.slice(0, first)) : null, rest);
}

/** Experts that were chosen instead of the reference's. */
function flipTable(candidate, prompts) {
  if (!candidate.flips.length) return null;
  const rows = candidate.flips.map((each) => [el("code", { text: each.site }), prompts[each.prompt].name, each.experts, each.tokens, errorText(each.margin), `${each.parted} of ${each.tokens}`]);
  return section("flips", "Other experts", "margin: how near the choice was in the reference", el("div", { class: "scroll" },
    table(["router", "prompt", "choices", "tokens", "largest margin", "had parted before"], rows, [2, 3, 4, 5])));
}

/** Which side is nearer to the equations in float64. */
function nearerTable(candidate) {
  if (!candidate.nearer.length) return null;
  const rows = candidate.nearer.map((each) => [el("code", { text: each.site }), errorText(each.reference), errorText(each.candidate), each.candidate < each.reference ? "the candidate" : "the reference"]);
  return section("nearer", "Nearer to float64", "relative errors, against the reference’s equations run in float64", table(["site", "reference", "candidate", "nearer"], rows, [1, 2]));
}
