"""The page of a comparison for readers without JavaScript: its verdicts and numbers as plain tables, from what the page carries.

**Table**: a caption, headings, and rows of texts. What is infinite, null in the data, is written ∞, and what is not known –.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TypeAlias

from llmtrace.view.html import plain_table
from llmtrace.view.pack import Document

Table: TypeAlias = tuple[str, Sequence[str], Sequence[Sequence[str]]]
MOST = 60
"""Sites, and weights of a budget, that are told of each candidate: those with the largest errors, and the dearest."""
JUDGED = ("holds", "violated", "explained")
SITES = ("site", "status", "local error", "rounding", "inherited error")
FAULTS = ("site", "blocks", "local error", "rounding", "own weights", "inherited error", "why")
PREDICTIONS = ("prompt", "predictions", "mean KLD in nats", "worst KLD", "same top")
TOKENS = ("prompt", "token", "reference", "candidate", "what")
SWAPS = ("weight", "stored as", "KL in nats", "share", "with all dearer", "its own error", "same top")
ENDS = {
    "together": "all weights at once",
    "candidate": "the candidate itself",
    "runtime": "the candidate, from the reference with its weights",
}
MOTIFS = ("motif", "rank correlation", "heads kept", "lost", "gained")
INFLUENCE = ("prompt", "by", "rank correlation", "lowest", "at position")
LENS = ("prompt", "rank correlation", "largest change in nats", "at", "settles in the reference", "in the candidate")


def plain(content: Document) -> str:
    """Every candidate of a page's content, one below the other."""
    parts = ["<p>Without JavaScript this page shows its numbers as tables.</p>", *_notes(content["notes"])]
    for each in content["candidates"]:
        name = each["name"]
        parts += [_said("h2", f"{name} against {content['reference']['name']}"), _said("p", each["headline"])]
        parts += _notes(each["notes"])
        tables = _tables(each, content["prompts"])
        parts += (plain_table(f"{name}: {caption}", head, rows) for caption, head, rows in tables)
    return f'<div class="plain">{"".join(parts)}</div>'


def _said(tag: str, text: str) -> str:
    return f"<{tag}>{escape(text)}</{tag}>"


def _notes(notes: Sequence[str]) -> Iterator[str]:
    return (_said("p", f"note: {note}") for note in notes)


def _tables(candidate: Document, prompts: Sequence[Document]) -> Iterator[Table]:
    names = [each["name"] for each in prompts]
    if candidate["tokens"]:
        yield "tokens that are read otherwise", TOKENS, [_token(each, names) for each in candidate["tokens"]]
    if candidate["divergences"]:
        yield "where it diverges", FAULTS, [_fault(each) for each in candidate["divergences"]]
    judged = sorted((site for site in candidate["sites"] if site["status"] in JUDGED), key=_times, reverse=True)
    yield f"the worst of {len(judged)} sites", SITES, [_site(each) for each in judged[:MOST]]
    yield "predictions", PREDICTIONS, [_output(each, names) for each in candidate["outputs"]]
    if candidate["budget"] is not None:
        yield from _budget(candidate["budget"])
    if candidate["mechanisms"] is not None:
        yield from _mechanisms(candidate["mechanisms"], names)


def _token(found: Document, names: Sequence[str]) -> list[str]:
    sides = ["nothing more" if token is None else token["text"] for token in (found["reference"], found["candidate"])]
    where = "not run" if found["prompt"] is None else names[found["prompt"]]
    return [where, str(found["index"]), *sides, found["what"]]


def _fault(found: Document) -> list[str]:
    cause = found["cause"]
    why = cause["words"] if cause else found["reason"] or f"unexplained (tried: {_tried(found['tried'])})"
    errors = _error(found["local_error"]), _error(found["tolerance"]), _known(found["own_error"])
    blocks = ", ".join(map(str, found["layers"]))
    return [found["site"], blocks, *errors, _known(found["inherited_error"]), why]


def _tried(tried: Sequence[Document]) -> str:
    return ", ".join(f"{each['name']} leaves {_error(each['left'])}" for each in tried) or "nothing"


def _site(each: Document) -> list[str]:
    errors = _error(each["local_error"]), _error(each["tolerance"]), _known(each["inherited_error"])
    return [each["site"], each["status"], *errors]


def _output(each: Document, names: Sequence[str]) -> list[str]:
    klds = _error(each["mean_kld"]), _error(each["worst_kld"])
    return [names[each["prompt"]], str(each["tokens"]), *klds, _share(each["same_top"])]


def _budget(budget: Document) -> Iterator[Table]:
    sums = [["sum of the costs", _error(budget["total"]), "–"]]
    sums += ([words, *_cost(budget[name])] for name, words in ENDS.items())
    yield f"budget: {budget['headline']}", ("", "KL in nats", "same top"), sums
    swaps = [_swap(each) for each in budget["swaps"]]
    yield f"budget, the dearest of {len(swaps)} weights", SWAPS, swaps[:MOST]
    missing = [f"{', '.join(each['names'])}: {each['why']}" for each in budget["unswapped"]]
    yield from _also("budget", [*missing, *budget["notes"]])


def _also(what: str, notes: Sequence[str]) -> Iterator[Table]:
    if notes:
        yield f"{what}, besides", ("note",), [[note] for note in notes]


def _cost(distance: Document | None) -> tuple[str, str]:
    if distance is None:
        return "–", "–"
    error = "" if distance["kl_error"] is None else f" ± {_error(distance['kl_error'])}"
    return _error(distance["kl"]) + error, _share(distance["same_top"])


def _swap(swap: Document) -> list[str]:
    kl, same = _cost(swap["distance"])
    shares = _share(swap["share"]), _share(swap["cumulative"])
    return [" with ".join(swap["names"]), swap["stored"], kl, *shares, _error(swap["relative_error"]), same]


def _mechanisms(found: Document, names: Sequence[str]) -> Iterator[Table]:
    yield f"mechanisms: {found['words']}", MOTIFS, [_motif(each) for each in found["motifs"]]
    if found["influence"]:
        yield "influence", INFLUENCE, [_influence(each, names) for each in found["influence"]]
    if found["lens"]:
        yield "lens", LENS, [_lens(each, names) for each in found["lens"]]
    yield from _also("mechanisms", found["notes"])


def _motif(each: Document) -> list[str]:
    heads = each["heads"]
    lost = [head["node"] for head in heads if not head["kept"]]
    kept = f"{len(heads) - len(lost)} of {len(heads)}"
    return [each["motif"], _figure(each["correlation"]), kept, ", ".join(lost), ", ".join(each["gained"])]


def _influence(each: Document, names: Sequence[str]) -> list[str]:
    figures = _figure(each["mean"]), _figure(each["worst"]), str(each["worst_position"])
    return [names[each["prompt"]], each["method"], *figures]


def _lens(each: Document, names: Sequence[str]) -> list[str]:
    change = _figure(each["correlation"]), _figure(each["largest"]), each["largest_at"]
    settles = (each[f"settles_{side}"] or "nowhere" for side in ("reference", "candidate"))
    return [names[each["prompt"]], *change, *settles]


def _times(site: Document) -> float:
    error, tolerance = site["local_error"], site["tolerance"]
    if error is None:
        return float("inf")
    return float(error / tolerance) if tolerance else float("inf") if error else 0.0


def _error(value: float | None) -> str:
    return "∞" if value is None else f"{value:.1e}" if value else "0"


def _known(value: float | None) -> str:
    return "–" if value is None else _error(value)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
