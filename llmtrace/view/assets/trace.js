// The page of a trace: attention patterns by layer, head and query, and what was recorded.

/** Fill `root` from the packed trace. */
function tracePage(root, trace) {
  const heading = el("h1", {}, "What was recorded of ", el("span", { text: `${trace.tokens.length} tokens` }));
  root.append(heading);
  if (trace.edits.length) root.append(el("p", { class: "message" }, el("b", { text: "Edited: " }), "this run was changed on its way, by ", el("code", { text: trace.edits.join(", ") })));
  const patterns = trace.patterns.map((layer) => ({ ...layer, rows: layer.heads.map((data) => unpackTriangle({ data, queries: trace.queries, units: trace.units }, trace.tokens.length)) }));
  if (patterns.length) root.append(patternView(trace, patterns));
  else root.append(tokenList(trace.tokens));
  for (const note of trace.notes) root.append(el("p", { class: "message", text: note }));
  root.append(noteList({ facts: trace.facts, source: trace.source, warnings: trace.warnings }), signalSection(trace.signals), tip, spoken);
}

function tokenList(tokens) {
  const line = tokenLine(tokens, { choose: () => undefined, describe: (place) => [["position", String(place)], ...tokenCard(tokens[place])], label: "Prompt" });
  line.shade(null, 0, tokens.length - 1);
  return el("div", { class: "prompt" }, line.node);
}

/** Weight from a query to its strongest key other than the first position: what tells heads apart, since most weight is parked there. */
function reach(row, query) {
  let best = query === 0 ? row[0] : 0;
  for (let key = 1; key <= query; key++) if (row[key] > best) best = row[key];
  return best;
}

function patternView(trace, patterns) {
  const count = trace.tokens.length;
  const queries = trace.queries;
  const state = { layer: 0, head: 0, query: queries[queries.length - 1] };
  const most = Math.max(...patterns.map((layer) => layer.rows.length));
  const sentence = el("h2", { class: "sentence", "aria-live": "polite" });
  const message = el("p", { class: "message", role: "status", hidden: true });
  const line = tokenLine(trace.tokens, { choose: (query) => choose({ query }), describe, label: "Prompt. Enter makes a token the query." });
  const scale = el("div", { class: "scale" }, legend(1, false, "attention weight"));
  const maps = el("div", { class: "maps" });
  const width = Math.max(8, Math.min(22, Math.floor(680 / patterns.length)));
  const rowOf = (layer, head) => (patterns[layer].rows[head] ? patterns[layer].rows[head].row(state.query) : null);
  const number = (head) => patterns[state.layer].numbers[head];

  function describe(place) {
    const row = rowOf(state.layer, state.head);
    const rows = [["position", String(place)]];
    if (row) rows.push(["weight", el("b", { class: "exact", text: num(row[place], 5) })]);
    return rows.concat(tokenCard(trace.tokens[place]));
  }
  function choose(change) {
    Object.assign(state, change);
    update();
  }
  function update() {
    const row = rowOf(state.layer, state.head);
    const layer = patterns[state.layer];
    line.shade(row, 1, state.query);
    sentence.replaceChildren(`Layer ${layer.layer}, head ${number(state.head)}: where position ${state.query}, `, quote(trace.tokens[state.query]), ", looks");
    message.hidden = Boolean(row);
    message.textContent = row ? "" : `The page holds the queries ${queries.join(", ").slice(0, 60)}: choose one of them, or trace again with others.`;
    maps.replaceChildren(headSection(), ...(count <= 256 ? [patternSection(layer)] : []));
  }
  function headSection() {
    const value = (head, at) => {
      const row = head < patterns[at].rows.length ? rowOf(at, head) : null;
      return row ? reach(row, state.query) : head < patterns[at].rows.length ? null : undefined;
    };
    const map = heatMap({
      rows: most, columns: patterns.length, width, height: 14, top: 1, value, mark: [state.head, state.layer], columnTitle: "layer", columnLabel: (at) => String(patterns[at].layer),
      rowLabel: (head) => `head ${patterns[0].numbers[head] ?? head}`, title: (head, at) => `layer ${patterns[at].layer}, head ${patterns[at].numbers[head]}`,
      describe: (head, at) => [["strongest weight not on position 0", num(value(head, at), 5)], ["pattern", patterns[at].provenance]],
      choose: (head, at) => choose({ head, layer: at }), label: "Heads by layers; arrows move, Enter shows the head's pattern",
    });
    return section("heads", "Heads × layers", `strongest weight of position ${state.query} on a token other than the first; click a head`, map);
  }
  function patternSection(layer) {
    const rows = layer.rows[state.head];
    const side = count <= 40 ? 20 : count <= 90 ? 10 : 5;
    const value = (at, key) => (key > queries[at] ? undefined : rows.row(queries[at])[key]);
    const map = heatMap({
      rows: queries.length, columns: count, width: side, height: side, top: 1, value, columnTitle: "key position", mark: queries.includes(state.query) ? [queries.indexOf(state.query), state.query] : null,
      rowLabel: (at) => ({ ...trace.tokens[queries[at]], position: queries[at] }), title: (at, key) => `query ${queries[at]}, key ${key}`,
      describe: (at, key) => [["weight", num(value(at, key), 5)], ["query", trace.tokens[queries[at]].text], ["key", trace.tokens[key].text]],
      choose: (at) => choose({ query: queries[at] }), label: "Queries by keys; arrows move, Enter chooses the query",
    });
    return section("pattern", "Pattern", layer.provenance, map);
  }

  let best = -1;
  patterns.forEach((layer, at) => layer.rows.forEach((_, head) => {
    const row = rowOf(at, head);
    const found = row ? reach(row, state.query) : -1;
    if (found > best) [best, state.layer, state.head] = [found, at, head];
  }));
  update();
  return el("div", {}, sentence, el("div", { class: "prompt" }, line.node), message, scale, maps);
}

function signalSection(signals) {
  const rows = signals.map((signal) => [el("code", { text: signal.site }), signal.axes, signal.dtype, signal.bytes, signal.provenance, signal.precision]);
  const node = table(["site", "axes", "type", "bytes", "where from", "computed in"], rows, [3]);
  return section("signals", "Signals", "layers alike are one row; the names are patterns that --capture takes", el("div", { class: "scroll" }, node));
}
