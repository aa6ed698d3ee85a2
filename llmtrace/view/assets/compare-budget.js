// The quantisation budget: what each weight costs the predictions, the dearest first; and that costs do not add up.

const SHOWN_SWAPS = 15;

/** The budget of a candidate, where one was made. */
function budgetSection(candidate) {
  const { budget } = candidate;
  if (!budget) return null;
  const top = strongest(budget.swaps.map((swap) => swap.distance.kl)); // an infinite one is null, and as long as the longest
  const onText = budget.context !== null;
  const row = (swap, at) => {
    const share = Math.max(0, Math.min(1, infinite(swap.distance.kl) / (top || 1)));
    const bar = el("span", { class: shadeOf(share, 1) });
    bar.style.width = `${100 * share}%`;
    const names = el("span", {}, el("code", { text: swap.names[0] }), swap.names.length > 1 ? el("span", { class: "of", text: ` and ${swap.names.length - 1} more, one tensor`, title: swap.names.join(", ") }) : null);
    const mebibytes = swap.bytes === null ? "–" : num(swap.bytes / 2 ** 20);
    return [at + 1, names, swap.stored, el("span", { class: "track" }, bar), nats(swap.distance), percent(swap.share), percent(swap.cumulative), mebibytes, errorText(swap.kl_per_mebibyte), errorText(swap.relative_error), percent(swap.distance.same_top), ...(onText ? textOf(swap.distance) : [])];
  };
  const heads = ["", "weight", "stored as", "", "KL, nats", "share", "with all dearer", "MiB", "nats per MiB", "its own error", "same top", ...(onText ? TEXT_HEADS : [])];
  const rows = budget.swaps.map(row);
  const build = (some) => el("div", { class: "scroll" }, table(heads, some, [0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]));
  const rest = rows.length > SHOWN_SWAPS ? el("details", {}, el("summary", { text: `${rows.length - SHOWN_SWAPS} more` }), build(rows.slice(SHOWN_SWAPS))) : null;
  const pieces = `${onText ? "chunk" : "prompt"}${budget.pieces === 1 ? "" : "s"}${onText ? ` of ${budget.context} tokens` : ""}`;
  const over = `${budget.predictions} predictions on ${budget.pieces} ${pieces}`;
  const missing = budget.unswapped.map(({ names, why }) => `${names.join(", ")}: ${why}`);
  return section("budget", "Quantisation budget", `one weight of the candidate at a time, in the reference; ${over}`, el("p", { class: "headline", text: budget.headline }), sumsOf(budget),
    rows.length ? build(rows.slice(0, SHOWN_SWAPS)) : el("p", { class: "of", text: "No weight differs." }), rest, notesOf([...missing, ...budget.notes]));
}

/** What the costs come to: added, all at once, the candidate itself, and what its weights do not explain. */
function sumsOf(budget) {
  const { total, together, candidate, runtime, context, perplexity, relative_excess: excess } = budget;
  const onText = context !== null;
  const apart = excess === null ? "" : `${excess < 0 ? "−" : "+"}${percent(Math.abs(excess), 0)} of the sum: costs do not add up`;
  const rows = [
    ["sum of the costs", errorText(infinite(total), 3), "", "–", ...(onText ? ["–", "–", "–"] : [])],
    line("all weights at once", together, apart),
    line("the candidate itself", candidate, candidate ? "" : "its logits cannot be compared"),
    line("the candidate, from the reference with its weights", runtime, runtime ? "what its weights do not explain" : ""),
  ];
  if (onText) rows.unshift(["the reference", "0", "", "–", num(perplexity, 5), "–", "–"]);
  return table(["", "KL, nats", "", "same top", ...(onText ? TEXT_HEADS : [])], rows, [1, 3, 4, 5, 6]);

  function line(name, distance, words) {
    const text = !onText ? [] : distance ? textOf(distance) : ["–", "–", "–"];
    return [name, distance ? nats(distance) : "–", words, distance ? percent(distance.same_top) : "–", ...text];
  }
}

const TEXT_HEADS = ["perplexity", "ln PPL ratio", "RMS Δp"];

/** What is counted on a text besides, as llama.cpp counts. */
function textOf({ perplexity, log_ppl_ratio: ratio, log_ppl_ratio_error: error, rms_shift: shift }) {
  const signed = ratio === null ? "–" : (ratio < 0 ? "−" : "+") + errorText(Math.abs(ratio), 3);
  return [num(perplexity, 5), error === null ? signed : `${signed} ± ${errorText(error, 1)}`, percent(shift, 2)];
}

function nats(distance) {
  return errorText(infinite(distance.kl), 3) + (distance.kl_error === null ? "" : ` ± ${errorText(distance.kl_error, 1)}`);
}

/** Notes as a list; null of none. */
function notesOf(texts) {
  return texts.length ? el("ul", { class: "notes", "aria-label": "Notes" }, ...texts.map((text) => el("li", { text }))) : null;
}
