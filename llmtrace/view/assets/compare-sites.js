// The list of sites with their errors, and everything about the one that is chosen.

const ORDERS = {
  site: (a, b) => a.place - b.place,
  local: (a, b) => largest(localOf(a), localOf(b)) || a.place - b.place,
  inherited: (a, b) => largest(a.inherited_error, b.inherited_error) || a.place - b.place,
  times: (a, b) => RANKS.indexOf(a.status) - RANKS.indexOf(b.status) || largest(timesOf(a), timesOf(b)) || a.place - b.place,
};
const largest = (a, b) => (b ?? -1) - (a ?? -1); // first; what is not known last; two infinite ones are NaN, which is no order
const RANKS = ["violated", "explained", "holds", "unchecked", "unavailable"];
const SIGNS = { violated: "▲", explained: "△", holds: "", unchecked: "?", unavailable: "?" };
const STATUS = {
  holds: "within what rounding explains", violated: "beyond what rounding explains", unchecked: "could not be checked", unavailable: "not shown",
  explained: "beyond what rounding explains, and within what the candidate’s weights explain",
};
const WORDS = [
  ["local error", "what this one step adds: the signal beside the reference’s equation and weights, applied to the candidate’s own inputs"],
  ["own error", "the same, with the candidate’s own weights"],
  ["inherited error", "how far the signal is from the reference’s: all that came before, too"],
  ["rounding", "what a step may be off, by its types and how long its sums are; the worst token, twice as much"],
];

/** A list that can be filtered and ordered; `choose(site)` is called with the one that is chosen. Arrows move, Enter chooses. */
function siteList(sites, choose) {
  const state = { order: "times", text: "", only: false };
  const search = el("input", { type: "search", placeholder: "filter: attn.q, blocks.3.", "aria-label": "Filter sites by name" });
  const box = el("input", { type: "checkbox" });
  const count = el("p", { class: "of", role: "status" });
  const body = el("tbody");
  const heads = [["site", "site"], ["local", "local"], ["inherited", "inherited"], ["times", "× rounding"]].map(([order, text]) => {
    const button = el("button", { type: "button", text, "data-order": order });
    button.addEventListener("click", () => {
      state.order = order;
      fill();
    });
    return el("th", { scope: "col", class: order === "site" ? null : "right" }, button);
  });
  const rows = new Map(sites.map((site) => [site.site, rowOf(site)]));
  let chosen = null;
  let shown = [];

  function rowOf(site) {
    const button = el("button", { type: "button", tabindex: "-1", text: site.site });
    const sign = el("span", { class: "sign", title: STATUS[site.status], "aria-label": STATUS[site.status], role: "img", text: SIGNS[site.status] });
    const row = el("tr", { "data-site": site.site }, el("td", {}, sign, button),
      ...[errorText(localOf(site)), errorText(site.inherited_error), timesText(timesOf(site))].map((text) => el("td", { class: "right", text })));
    row.addEventListener("click", () => choose(site));
    return { row, button };
  }
  function fill() {
    const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
    shown = sites.filter((site) => (!state.only || beyond(site)) && words.every((word) => site.site.toLowerCase().includes(word)));
    shown.sort(ORDERS[state.order]);
    body.replaceChildren(...shown.map((site) => rows.get(site.site).row));
    for (const head of heads) {
      const own = head.firstChild.dataset.order === state.order;
      head.setAttribute("aria-sort", own ? (state.order === "site" ? "ascending" : "descending") : "none");
    }
    const nothing = state.only ? "no such site is beyond what rounding explains" : "no site has this in its name";
    count.textContent = shown.length ? `${shown.length} site${shown.length === 1 ? "" : "s"}, ${shown.filter(beyond).length} beyond what rounding explains` : nothing;
    reachable();
  }
  function reachable() {
    for (const { button } of rows.values()) button.tabIndex = -1;
    const first = shown.includes(chosen) ? chosen : shown[0];
    if (first) rows.get(first.site).button.tabIndex = 0;
  }
  search.addEventListener("input", () => {
    state.text = search.value;
    fill();
  });
  box.addEventListener("change", () => {
    state.only = box.checked;
    fill();
  });
  body.addEventListener("keydown", (event) => {
    const at = shown.findIndex((site) => rows.get(site.site).button === document.activeElement);
    const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: shown.length - 1, PageDown: at + 10, PageUp: at - 10 }[event.key];
    if (next === undefined || at < 0) return;
    event.preventDefault();
    const { button } = rows.get(shown[Math.max(0, Math.min(shown.length - 1, next))].site);
    for (const other of rows.values()) other.button.tabIndex = -1;
    button.tabIndex = 0;
    button.focus();
  });
  fill();
  const grid = el("table", { class: "list" }, el("thead", {}, el("tr", {}, ...heads)), body);
  return {
    node: section("sites", "Sites", "", el("div", { class: "finding" }, search, el("label", { class: "option" }, box, "only those beyond rounding")), count,
      el("div", { class: "scroll", tabindex: "-1" }, grid), el("details", {}, el("summary", { text: "what these numbers are" }), definitions(WORDS))),
    /** Mark a site as chosen, and bring it into view. */
    mark(site) {
      if (chosen) rows.get(chosen.site).row.removeAttribute("aria-current");
      chosen = site;
      const { row } = rows.get(site.site);
      row.setAttribute("aria-current", "true");
      reachable();
      const frame = row.closest(".scroll");
      if (frame && (row.offsetTop < frame.scrollTop + 24 || row.offsetTop + row.offsetHeight > frame.scrollTop + frame.clientHeight)) {
        frame.scrollTop = row.offsetTop - frame.clientHeight / 2;
      }
    },
  };
}

/** Everything that is known of one site; `choose(prompt, token)` is called for one of its worst tokens. */
function siteDetail(candidate, site, prompts, choose) {
  const list = definitions([
    ["local error", errorText(localOf(site), 3)], ["own error", errorText(site.own_error, 3)], ["inherited error", errorText(site.inherited_error, 3)],
    ["rounding explains", judged(site) ? errorText(site.tolerance, 3) : "–"], ["× rounding", timesText(timesOf(site), 3)],
    ["worst token’s error", judged(site) ? errorText(infinite(site.worst_token_error), 3) : "–"], ["worst in prompt", prompts[site.prompt].name],
  ]);
  const fault = candidate.divergences.find((each) => each.site === site.site || (each.layers.includes(site.layer) && kindOf(each.site) === site.kind));
  const status = el("p", { class: "of" }, el("span", { class: "sign", "aria-hidden": "true", text: SIGNS[site.status] }), STATUS[site.status]);
  return section("detail", site.site, "", status, site.reason ? el("p", { class: "message", text: site.reason }) : null, list, fault ? el("div", { class: "message fault" }, causeOf(fault)) : null, fault ? triedTable(fault) : null, worstTokens(site, prompts, choose));
}

function kindOf(site) {
  return site.replace(/^blocks\.\d+\./, "");
}

function definitions(pairs) {
  return el("dl", { class: "numbers" }, ...pairs.flatMap(([name, text]) => [el("dt", { text: name }), el("dd", { text })]));
}

function worstTokens(site, prompts, choose) {
  if (!site.worst_tokens.length) return el("p", { class: "of", text: judged(site) ? "No token is off here." : "" });
  const rows = site.worst_tokens.map((worst) => {
    const { name, tokens } = prompts[worst.prompt];
    const token = tokens[worst.token];
    const button = el("button", { type: "button", class: "chip", "aria-label": `${token.text}, token ${worst.token} of ${name}` }, tokenText(token, 14));
    button.addEventListener("click", () => choose(worst.prompt, worst.token));
    return [button, `${name} ${worst.token}`, errorText(infinite(worst.local_error)), errorText(worst.inherited_error)];
  });
  return el("div", { class: "worst" }, el("h3", { text: "Worst tokens" }), table(["token", "prompt, index", "local", "inherited"], rows, [2, 3]));
}
