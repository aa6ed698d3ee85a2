// The page of one prompt: sentence, tokens, and the maps of whichever method is chosen.

/** Fill `root` from documents (one a method) and a lens. */
function influencePage(root, { documents, lens }) {
  if (!documents.length) return lensPage(root, lens);
  const state = { at: 0, position: documents[0].position, without: false, head: null };
  const pages = documents.map(openDocument);
  const names = documents.map((doc, at) => (documents.findIndex((other) => other.method === doc.method) === at ? doc.method : `${doc.method} (${at + 1})`));
  const body = el("div", { id: "panel", role: documents.length > 1 ? "tabpanel" : null });
  const tabs = methodTabs(names, show);
  root.append(tabs.node, body, tip, spoken);

  function show(at) {
    const here = pages[at];
    const same = documents[state.at].tokens.length === here.doc.tokens.length;
    if (!same) state.position = here.doc.position;
    state.head = null;
    state.at = at;
    tabs.select(at);
    body.replaceChildren(...documentView(here, state, lens));
  }
  show(0);
}

/** A document with its arrays unpacked. */
function openDocument(doc) {
  return {
    doc,
    scores: unpack(doc.scores).values,
    matrix: unpackTriangle(doc.matrix, doc.tokens.length),
    heads: unpack(doc.heads),
    layers: unpack(doc.layers),
    maps: unpack(doc.maps),
  };
}

/** The scores that are shown: of one head alone where one was chosen, else of the target position. */
function scoresShown(here, state) {
  if (!state.head) return scoresAt(here, state.position);
  const start = (state.head[0] * here.heads.columns + state.head[1]) * here.doc.tokens.length;
  return here.maps.values.subarray(start, start + here.doc.tokens.length);
}

/** The scores for a target position: the document's own, or a row of its matrix; null where neither knows. */
function scoresAt({ doc, scores, matrix }, position) {
  if (position === doc.position) return scores;
  return matrix ? matrix.row(position) : null;
}

function methodTabs(names, choose, what = "method") {
  const node = el("nav", { class: "tabs", role: names.length > 1 ? "tablist" : null, "aria-label": `${what[0].toUpperCase()}${what.slice(1)}s` });
  const buttons = names.map((name, at) => {
    const button = el("button", { type: "button", role: names.length > 1 ? "tab" : null, "aria-controls": "panel", text: name });
    button.addEventListener("click", () => choose(at));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = (at + step + names.length) % names.length;
      choose(next);
      buttons[next].focus();
    });
    return button;
  });
  node.append(el("span", { class: "label", text: names.length > 1 ? `${what}s` : what }), ...buttons);
  return {
    node,
    select: (chosen) => buttons.forEach((button, at) => {
      button.setAttribute("aria-selected", String(at === chosen));
      button.tabIndex = at === chosen ? 0 : -1;
    }),
  };
}

function documentView(here, state, lens) {
  const { doc } = here;
  const unit = doc.contract ? doc.contract.unit : "score";
  const sentence = el("h1", { "aria-live": "polite" });
  const message = el("p", { class: "message", role: "status", hidden: true });
  const predicted = el("span", { class: "predicted" });
  const line = tokenLine(doc.tokens, { choose, describe, label: "Prompt. Enter makes a token the target." });
  line.node.append(predicted);
  const scale = el("div", { class: "scale" });
  const maps = el("div", { class: "maps" });
  const box = el("input", { type: "checkbox" });
  box.checked = state.without;
  box.addEventListener("change", () => {
    state.without = box.checked;
    update();
  });
  const option = doc.tokens.length > 1 ? el("label", { class: "option" }, box, "scale without the first position") : null;

  const alone = el("p", { class: "alone" });
  function choose(position) {
    state.position = position;
    state.head = null;
    update();
  }
  function chooseHead(layer, head) {
    const again = state.head && state.head[0] === layer && state.head[1] === head;
    state.position = doc.position;
    state.head = again ? null : [layer, head];
    update();
  }
  function describe(place) {
    const scores = scoresShown(here, state);
    const rows = [["position", String(place)]];
    if (scores) rows.push(["score", el("b", { class: "exact", text: num(scores[place], 5) })]);
    return rows.concat(tokenCard(doc.tokens[place], doc.predictions[place]));
  }
  function update() {
    const { position } = state;
    const scores = scoresShown(here, state);
    const top = scores ? strongest(state.without ? scores.slice(1) : scores) : 0;
    line.shade(scores, top, position);
    sentence.replaceChildren(...sentenceOf(doc, position, scores));
    alone.hidden = !here.maps;
    alone.textContent = state.head ? `Layer ${state.head[0]}, head ${state.head[1]} alone; choose it again for all.` : "A click on a head shows it alone.";
    const next = targetAt(doc, position);
    const arrow = doc.aims ? el("span", { class: "arrow", "aria-hidden": "true", text: "→" }) : el("span", { class: "arrow", text: "predicts" });
    predicted.classList.toggle("aside", !doc.aims);
    predicted.replaceChildren(...(next ? [arrow, el("span", { class: "chip" }, tokenText(next))] : []));
    message.hidden = Boolean(scores);
    message.textContent = scores ? "" : unknown(here, position);
    scale.replaceChildren(...(scores ? [legend(top, scores.some((score) => score < 0), unit)] : []), ...(option ? [option] : []));
    maps.classList.toggle("stale", position !== doc.position);
    maps.dataset.note = `The maps below explain the prediction at position ${doc.position}.`;
  }
  maps.append(...mapsOf(here, unit, here.maps ? chooseHead : null, lens));
  const headSection = maps.querySelector("section.heads > header");
  if (headSection) headSection.append(alone);
  update();
  const behaviours = doc.table && doc.table.length ? behaviourSection(doc.table) : null;
  const lower = el("div", { class: "maps" }, lens ? lensSection(lens) : null, behaviours);
  return [sentence, el("div", { class: "prompt" }, line.node), message, scale, noteList(doc), maps, lower, contractOf(doc)].filter(Boolean);
}

/** The rows of a token's card that do not depend on the target. */
function tokenCard(token, prediction) {
  const rows = [["text", token.text]];
  if (token.id !== undefined && token.id !== null) rows.push(["id", String(token.id)]);
  if (token.bytes) rows.push(["bytes", token.bytes]);
  if (prediction) rows.push(["predicts", tokenText(prediction)]);
  return rows;
}

/** The token that is explained at a position: the document's target at its own, else what the model predicts there; a method that does
 *  not aim explains none, and what is predicted is shown all the same. */
function targetAt(doc, position) {
  return position === doc.position && doc.aims ? doc.target : doc.predictions[position] || null;
}

function sentenceOf(doc, position, scores) {
  const target = targetAt(doc, position);
  const guess = doc.predictions[position];
  const kind = target && guess && position === doc.position && target.id !== guess.id ? "The target " : "The prediction ";
  const parts = [el("span", { class: "by", text: doc.method })];
  if (doc.aims) {
    parts.push(kind);
    if (target) parts.push(quote(target));
    if (doc.foil && position === doc.position) parts.push(" rather than ", quote(doc.foil));
    parts.push(` at position ${position}`);
  } else parts.push(`Position ${position}`);
  const verb = doc.aims ? "depends on" : "draws on";
  const end = doc.aims ? "" : ", whatever token is predicted";
  if (!scores) return [...parts, ", which was not computed."];
  const order = [...scores.keys()].slice(0, position + 1).filter((place) => scores[place]);
  order.sort((a, b) => Math.abs(scores[b]) - Math.abs(scores[a]) || a - b);
  if (!order.length) return [...parts, ` ${verb} no token${end}.`];
  const signed = scores.some((score) => score < 0);
  parts.push(` ${verb} `);
  order.slice(0, 3).forEach((place, at) => {
    const amount = el("span", { class: "amount", text: ` ${num(scores[place], 2, signed)}` });
    parts.push(at ? ", " : "", el("span", { class: "pair" }, quote(doc.tokens[place]), whereOf(doc.tokens, place), amount));
  });
  return [...parts, order.length > 3 ? " …" : "", `${end}${order.length > 3 && doc.aims ? "" : "."}`];
}

/** Where a token stands, if the same token stands elsewhere in the prompt too. */
function whereOf(tokens, place) {
  const same = (token) => token.text === tokens[place].text && token.id === tokens[place].id;
  return tokens.filter(same).length > 1 ? el("span", { class: "where", text: ` at ${place}` }) : "";
}

function quote(token) {
  return el("q", {}, tokenText(token));
}

/** Why nothing is known about a position, and what to do. */
function unknown({ doc, matrix }, position) {
  const rest = `Ask for it: llmtrace influence MODEL PROMPT --method ${doc.method} --position ${position}`;
  const why = matrix
    ? `This prompt is long, so the page holds the targets from position ${matrix.first} on.`
    : `The method ${doc.method} was computed for position ${doc.position} only.`;
  return `${why} ${rest}`;
}

function noteList(doc) {
  const list = el("dl", { class: "facts" });
  const add = (name, value, title) => list.append(el("div", {}, el("dt", { text: name }), el("dd", { text: value, title })));
  for (const [name, value] of doc.standings || []) add(name, value);
  for (const [name, value] of doc.facts) add(name, value, name === "model" ? doc.source : null);
  if (doc.completeness_gap !== null && doc.completeness_gap !== undefined) add("completeness gap", num(doc.completeness_gap, 2));
  const notes = Array.isArray(doc.notes) ? doc.notes.map((note) => (Array.isArray(note) ? note : [note.name, note.value])) : Object.entries(doc.notes || {});
  for (const [name, value] of notes) add(name, typeof value === "number" ? num(value, 4) : String(value));
  const warnings = [...(doc.warnings || []), ...(doc.model_notes || [])];
  return el("div", {}, list, warnings.length ? el("ul", { class: "warnings", "aria-label": "Warnings" }, ...warnings.map((text) => el("li", { text }))) : null);
}

function contractOf(doc) {
  if (!doc.contract) return null;
  const list = el("dl", { class: "contract" });
  const words = { output: "explained", features: "credited", process: "how", fixed: "held fixed", unit: "unit" };
  for (const [name, label] of Object.entries(words)) {
    if (doc.contract[name]) list.append(el("dt", { text: label }), el("dd", { text: doc.contract[name] }));
  }
  return section("claims", "What a score means", "", list);
}

function mapsOf({ doc, heads, layers, scores }, unit, chooseHead, lens) {
  const found = [];
  const columns = (layers || heads || { rows: 1 }).rows;
  const width = Math.max(8, Math.min(22, Math.floor(680 / columns)));
  const title = (row, column) => `layer ${column}, ${row}`;
  if (layers) {
    const count = doc.tokens.length;
    const top = strongest(layers.values);
    const height = count <= 40 ? 20 : count <= 160 ? 13 : 6;
    const map = heatMap({
      rows: count, columns, width, height, top, rowLabel: (row) => ({ ...doc.tokens[row], position: row }), columnTitle: "layer",
      value: (row, column) => layers.at(column, row), title: (row, column) => title(`position ${row}`, column),
      describe: (row, column) => [["score", num(layers.at(column, row), 5)], ["token", doc.tokens[row].text], ["id", String(doc.tokens[row].id ?? "–")]],
      label: `Source tokens by layers, ${unit}; arrows move between cells`,
    });
    found.push(section("sources", "Source tokens × layers", "each layer alone", map, legend(top, layers.values.some((v) => v < 0), unit)));
  }
  if (lens && lens.position === doc.position && lens.tokens.length === doc.tokens.length) found.push(...rankSection(lens, width));
  if (heads && heads.values.length) {
    const top = strongest(heads.values);
    const signed = heads.values.some((v) => v < 0);
    const map = heatMap({
      rows: heads.columns, columns: heads.rows, width, height: 14, top, rowLabel: (row) => `head ${row}`, columnTitle: "layer",
      value: (row, column) => heads.at(column, row), title: (row, column) => title(`head ${row}`, column),
      describe: (row, column) => [["score", num(heads.at(column, row), 5)]],
      label: `Heads by layers, ${unit}; arrows move between cells`, choose: chooseHead ? (row, column) => chooseHead(column, row) : null,
    });
    found.push(section("heads", "Heads × layers", "one number a head, at the position", map, legend(top, signed, unit)));
    found.push(section("strongest", "Strongest heads", "", strongHeads(heads, 8)));
  }
  const parts = pairsOf(doc.parts);
  if (parts.length) found.push(...partSections(parts, scores, width, unit));
  return found;
}

function behaviourSection(scores) {
  return section("behaviours", "What heads attend to", "mean attention over eligible rows; chance: uniform attention", ...headTable(scores));
}

/** Pairs, whether they came as pairs, as records with a name, or as an object. */
function pairsOf(parts) {
  if (!parts) return [];
  if (!Array.isArray(parts)) return Object.entries(parts);
  return parts.map((part) => (Array.isArray(part) ? part : [part.name, part.value ?? part.score]));
}

/** What no token is credited with: a strip for the parts that every layer has, and the sums beside the tokens' own. */
function partSections(parts, scores, width, unit) {
  const layered = new Map();
  const sums = [["all source tokens", scores.reduce((sum, score) => sum + score, 0)]];
  let layers = 0;
  for (const [name, value] of parts) {
    const found = /^blocks\.(\d+)\.(.+)$/.exec(name);
    if (!found) continue;
    if (!layered.has(found[2])) layered.set(found[2], new Map());
    layered.get(found[2]).set(Number(found[1]), value);
    layers = Math.max(layers, Number(found[1]) + 1);
  }
  const kinds = [...layered.keys()];
  for (const kind of kinds) sums.push([`${kind}, all layers`, [...layered.get(kind).values()].reduce((sum, value) => sum + value, 0)]);
  sums.push(...parts.filter(([name]) => !/^blocks\.\d+\./.test(name)));
  const out = [];
  if (layers > 1) {
    const value = (row, column) => layered.get(kinds[row]).get(column) ?? null;
    const all = kinds.flatMap((kind) => [...layered.get(kind).values()]);
    const map = heatMap({
      rows: kinds.length, columns: layers, width, height: 20, top: strongest(all), rowLabel: (row) => kinds[row], columnTitle: "layer", value,
      title: (row, column) => `blocks.${column}.${kinds[row]}`, describe: (row, column) => [["score", num(value(row, column), 5)]],
      label: `Parts that belong to no token, by layers, ${unit}; arrows move between cells`,
    });
    out.push(section("parts", "Credited to no token", "MLPs and biases mix no tokens", map, legend(strongest(all), all.some((v) => v < 0), unit)));
  }
  out.push(section("sums", "The whole", unit, bars(sums)));
  return out;
}
