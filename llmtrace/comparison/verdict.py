"""From what was found to a verdict and its one line; and what no prompt could have shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import evolve

from llmtrace.comparison.formats import Tensor, coarse, plain
from llmtrace.comparison.probes import GIVEN, TRACED
from llmtrace.comparison.record import Candidate, Divergence, SiteError, Verdict
from llmtrace.comparison.words import differing, explaining, occurring, saying
from llmtrace.schema.blocks import ROUNDED
from llmtrace.spec import DynamicNtk, LongRope, ModelSpec
from llmtrace.words import counted

BLIND = 0.1
"""A resolution above which the verdict's line says what could not have been seen."""


def judged(candidate: Candidate, prompts: int, coarser: Sequence[str]) -> Candidate:
    """A candidate with its verdict and headline; `coarser` are the types less than float32 in which it computes."""
    verdict = _verdict(candidate, bool(coarser))
    headline, why = _headline(candidate, verdict, prompts, coarser), candidate.tokens_not_compared
    untold = (f"Tokens were not compared: {why}.",) if why and why not in headline else ()
    return evolve(candidate, verdict=verdict, headline=headline, notes=(*untold, *candidate.notes))


def _verdict(candidate: Candidate, coarser: bool) -> Verdict:
    if candidate.divergences or candidate.tokens:
        return "diverges"
    beyond = any(each.status == "violated" for each in candidate.sites)
    return "within_precision" if beyond or coarser or any(map(_off, candidate.tensors)) else "agrees"


def _headline(candidate: Candidate, verdict: Verdict, prompts: int, coarser: Sequence[str]) -> str:
    over = f"{counted(len(_compared(candidate)), 'site')} on {counted(prompts, 'prompt')}"
    if candidate.tokens:
        first = candidate.tokens[0]
        where = "" if first.byte is None else f", byte {first.byte} of the text"
        site = candidate.first_divergence
        rest = f"it diverges at {site.site}: {told(site)}" if site is not None else "nothing else diverges"
        return f"diverges at the tokens: {first.what} (token {first.index}{where}); on the reference's tokens {rest}"
    if (first_site := candidate.first_divergence) is not None:
        more = len(candidate.divergences) - 1
        return f"diverges at {first_site.site}: {told(first_site)}" + (
            f" (and at {counted(more, 'other kind')} of site)" if more else ""
        )
    beyond = _changed(candidate) + _unshown(candidate) + _unseen(candidate) + _untold(candidate)
    if verdict == "agrees":
        return f"agrees: {over}, none beyond what rounding explains{beyond}"
    types = _formats(candidate, coarser)
    return f"within what {explaining(types)}: {over}{beyond}"


def told(divergence: Divergence) -> str:
    """A divergence in words: its cause, or its size."""
    if divergence.cause is not None:
        return divergence.cause.words + ("; harmless in this run" if divergence.cause.harmless else "")
    if divergence.reason:
        return divergence.reason
    kind = {
        "code": "it computes something else", "weights": "its weights are others", "format": "worse than its format explains",
        "reference": "the reference is at fault", "unknown": "its weights cannot be read, so whose fault it is cannot be told",
    }[divergence.kind]  # fmt: skip
    told = f"unexplained, {kind}{_within(divergence)}"
    if divergence.factor:
        told += f", {divergence.factor} times what it should be"
    return f"{told} (relative error {divergence.local_error:.1e}, rounding explains {divergence.tolerance:.1e})"


def _within(divergence: Divergence) -> str:
    """The span that a fault is in, where signals between were not captured."""
    if len(divergence.span) < 2:
        return ""
    part = divergence.site.rpartition(".")[0] + "."
    return f" within {', '.join(site.removeprefix(part) for site in reversed(divergence.span))}"


def unreached(reference: ModelSpec, candidate: ModelSpec, longest: int) -> Iterator[str]:
    """What the specs have that no prompt of this length meets."""
    windows = {
        b.attention.window for spec in (reference, candidate) for b in spec.blocks if b.attention and b.attention.window
    }
    for window in sorted(windows):
        if longest <= window:
            yield f"No prompt is longer than the window of {window:,} tokens, so what lies outside it was not compared."
    contexts = {
        s.context
        for spec in (reference, candidate)
        for b in spec.blocks
        if b.attention and b.attention.rotary and isinstance(s := b.attention.rotary.scaling, LongRope | DynamicNtk)
    }
    for context in sorted(contexts):
        if longest <= context:
            yield f"No prompt is longer than {context:,} tokens, beyond which the rotary frequencies are others: that was not compared."


def _compared(candidate: Candidate) -> list[SiteError]:
    return [each for each in candidate.sites if each.status in ("holds", "violated")]


def _changed(candidate: Candidate) -> str:
    """Predictions that are others all the same."""
    others = sum(round((1 - each.same_top) * each.tokens) for each in candidate.outputs)
    total = sum(each.tokens for each in candidate.outputs)
    return (
        f"; even so, {others:,} of {counted(total, 'prediction')} {'is' if others == 1 else 'are'} changed"
        if others
        else ""
    )


def _off(tensor: Tensor) -> bool:
    """Whether a weight is in a coarse type, and not the reference's own numbers."""
    return coarse(tensor.stored) and tensor.relative_error != 0


def _unshown(candidate: Candidate) -> str:
    """Differences of the specs, and of the weights, that no site showed."""
    said = [saying(candidate.spec)] if candidate.spec else []
    if bad := [tensor for tensor in candidate.tensors if not tensor.explained]:
        said.append(differing(bad[0]) + (f" and {counted(len(bad) - 1, 'more weight')}" if len(bad) > 1 else ""))
    return f"; but {', and '.join(said)}, which nothing here showed" if said else ""


def _unseen(candidate: Candidate) -> str:
    """What could not have been seen, where that is much."""
    if candidate.resolution <= BLIND:
        return ""
    return f"; at {coarsest(candidate).site} a change of less than {candidate.resolution:.0%} would not be seen"


def coarsest(candidate: Candidate) -> SiteError:
    """The site at which least would have been seen."""
    return max(_compared(candidate), key=lambda each: each.tolerance)


def _untold(candidate: Candidate) -> str:
    """That no text was read, where that was not asked for."""
    why = candidate.tokens_not_compared
    return f"; tokens not compared: {why}" if why and why not in (GIVEN, TRACED) else ""


def _formats(candidate: Candidate, coarser: Sequence[str]) -> list[str]:
    """The coarse types of its weights, the commonest first; else those of its signals."""
    named = occurring(tensor.stored for tensor in candidate.tensors if _off(tensor))
    named = named or [f"rounding activations to 8 bits ({kind})" if kind in ROUNDED else kind for kind in coarser[:2]]
    return named or [plain(candidate.model.weights) or "its precision"]
