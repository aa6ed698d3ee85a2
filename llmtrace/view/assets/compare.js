// The page of a comparison: the verdict, then sites, map and detail side by side, then everything else.

const VERDICTS = { agrees: ["✓", "agrees"], within_precision: ["≈", "within precision"], diverges: ["✗", "diverges"], short: ["✗", "falls short"] };

/** Fill `root` from the packed document. */
function comparisonPage(root, content) {
  const { candidates, prompts, reference } = content;
  root.classList.add("comparison");
  for (const candidate of candidates) candidate.sites.forEach((site, place) => (site.place = place));
  const several = candidates.length > 1;
  const body = el("div", { id: "panel", role: several ? "tabpanel" : null });
  const views = [];
  const tabs = methodTabs(candidates.map((candidate) => candidate.name), show, "candidate");
  if (several) {
    const verdicts = candidates.map((candidate) => [badgeOf(candidate), el("b", { text: candidate.name }), candidate.headline]);
    root.append(el("h1", {}, `${candidates.length} candidates`, el("span", { class: "where", text: ` against ${reference.name}` })), table(["", "", ""], verdicts),
      matrixView(candidates, prompts, (at, prompt) => show(at).open(prompt)), tabs.node);
    root.querySelector("table").classList.add("verdicts");
  }
  root.append(body, tip, spoken);

  function show(at) {
    views[at] ??= candidateView(candidates[at], content, several ? "h2" : "h1"); // one that was open before is as it was left
    tabs.select(at);
    body.replaceChildren(...views[at].nodes);
    if (several) body.setAttribute("aria-label", candidates[at].name);
    views[at].begin();
    return views[at];
  }
  show(0);
}

/** Everything about one candidate. */
function candidateView(candidate, { reference, prompts, norms, notes }, heading) {
  const { sites } = candidate;
  const list = siteList(sites, choose);
  const map = siteMap(sites, choose);
  const curve = errorCurve(sites, choose);
  const strips = tokenStrips(candidate, prompts, norms);
  const detail = el("div", { class: "aside", "aria-live": "polite" });

  function choose(site) {
    chosen = site;
    for (const part of [list, map, curve]) part.mark(site);
    detail.replaceChildren(siteDetail(candidate, site, prompts, (prompt, token) => {
      strips.go(site);
      strips.show(prompt, token);
    }));
    strips.go(site);
  }
  const named = (name) => sites.find((site) => site.site === name);
  const first = candidate.first_divergence && named(candidate.first_divergence.site);
  let chosen = first || [...sites].sort(ORDERS.times)[0];
  const bench = el("div", { class: "bench" }, list.node, detail, el("div", { class: "middle" }, map.node, curve.node));
  const parts = [
    ...headOf(candidate, reference, prompts, notes, heading), faultTable(candidate, prompts, tell), bench, strips.node,
    budgetSection(candidate), mechanismSection(candidate, prompts),
    el("div", { class: "maps" }, ...[promptTable(candidate, prompts, open), tokenTable(candidate, prompts), specTable(candidate), nearerTable(candidate),
      flipTable(candidate, prompts), tensorTable(candidate)].filter(Boolean)),
  ];
  function tell(name) {
    if (!named(name)) return;
    choose(named(name));
    detail.scrollIntoView({ block: "nearest" });
  }
  function open(prompt) {
    strips.show(prompt, 0);
  }
  return { nodes: parts.filter(Boolean), open, begin: () => choose(chosen) };
}

function badgeOf(candidate) {
  const [sign, word] = VERDICTS[candidate.shortfall && candidate.verdict !== "diverges" ? "short" : candidate.verdict];
  return el("span", { class: candidate.passed ? "verdict" : "verdict failed" }, el("span", { "aria-hidden": "true", text: `${sign} ` }), word);
}

function headOf(candidate, reference, prompts, notes, heading) {
  const facts = el("dl", { class: "facts" });
  const add = (name, value, title) => value && facts.append(el("div", {}, el("dt", { text: name }), el("dd", { text: value, title })));
  for (const [side, rows] of [["reference", reference.facts], ["candidate", candidate.facts]]) add(side, rows.map(([, value]) => value).join(" · "), rows.map(([name, value]) => `${name} ${value}`).join(", "));
  add("sites", `${candidate.sites.filter(judged).length} judged`);
  add("prompts", `${prompts.length}, of ${prompts.reduce((sum, prompt) => sum + prompt.tokens.length, 0).toLocaleString("en")} tokens`);
  const unseen = candidate.resolution > 1e-3 ? percent(candidate.resolution) : errorText(candidate.resolution);
  add("resolution", candidate.resolution && `somewhere a relative change of less than ${unseen} would not be seen`);
  return [
    el(heading, { class: "name" }, badgeOf(candidate), " ", candidate.name, el("span", { class: "where", text: ` against ${reference.name}` })), el("p", { class: "headline", text: candidate.headline }),
    facts, notesOf([...notes, ...candidate.notes]),
  ].filter(Boolean);
}
