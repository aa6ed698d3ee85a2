"""A comparison for people: the verdict first, then the evidence."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from llmtrace.cli.advice import advice
from llmtrace.cli.compared_budget import show_budget
from llmtrace.cli.compared_mechanisms import show_mechanisms
from llmtrace.cli.compared_prompts import by_prompt, matrix
from llmtrace.cli.opening import described, is_saved
from llmtrace.cli.output import line, scientific, table
from llmtrace.comparison.node_data import times
from llmtrace.comparison.verdict import coarsest, told
from llmtrace.schema.steps import any_layer, layer_of

if TYPE_CHECKING:
    from llmtrace.comparison.flips import Flips
    from llmtrace.comparison.formats import Tensor
    from llmtrace.comparison.record import Candidate, Comparison, Difference, Divergence, SiteError
    from llmtrace.comparison.tokens import TokenDifference
    from llmtrace.trace import ModelInfo, Token

CARRIES = 1e-3
"""A local error from which a site that holds is one that carries what a coarse type costs."""
SEEN = 1e-3
"""A resolution from which on it is said what it is."""
MOST = 6
"""Of those, so many are shown."""
MOST_READ = 24
"""Characters that are shown of a text that was read and not run."""


def show(comparison: Comparison, every: bool) -> None:
    """Every candidate: its verdict, its tokens, where it diverges and why, its predictions, its weights."""
    names = labels([candidate.model for candidate in comparison.candidates])
    for name, candidate in zip(names, comparison.candidates, strict=True):
        line(candidate.headline if len(names) == 1 else f"{name}: {candidate.headline}")
    if len(names) > 1:
        line()
        matrix(comparison)
    line()
    line(f"reference  {comparison.reference.source}: {described(comparison.reference)}")
    for note in comparison.notes:
        line(f"note: {note}")
    for number, (name, candidate) in enumerate(zip(names, comparison.candidates, strict=True)):
        if number:
            line()
        line(f"candidate  {name}: {described(candidate.model)}")
        for note in candidate.notes:
            line(f"note: {note}")
        _evidence(comparison, candidate, every)


def labels(models: Sequence[ModelInfo]) -> list[str]:
    """What several models are called: by their sources, where two have the same with their backends, and else with their numbers."""
    sources = [each.source for each in models]
    names = [each.source if sources.count(each.source) == 1 else f"{each.backend}:{each.source}" for each in models]
    return [name if names.count(name) == 1 else f"{name} ({at})" for at, name in enumerate(names, 1)]


def _evidence(comparison: Comparison, candidate: Candidate, every: bool) -> None:
    if candidate.tokens:
        line()
        heads = ("prompt", "token", "byte", "reference", "candidate", "what")
        table(heads, [_token(each) for each in candidate.tokens])
    if candidate.divergences:
        line()
        head = ("diverges at", "blocks", "error", "worst token", "rounding", "inherited", "why")
        table(head, [_divergence(each) for each in candidate.divergences], right=head[2:6])
    for near in candidate.nearer:
        side = "the candidate" if near.candidate < near.reference else "the reference"
        line(
            f"{near.site}: {side} is nearer to float64 (reference {scientific(near.reference)}, candidate {scientific(near.candidate)})"
        )
    fields(candidate.spec)
    by_prompt(comparison, candidate)
    if candidate.flips:
        line()
        heads = ("other experts", "prompt", "choices", "tokens", "largest margin", "had parted before")
        table(heads, [_flip(each) for each in candidate.flips], right=heads[1:])
    line()
    judged = [each for each in candidate.sites if each.status in ("holds", "violated")]
    worst = max(judged, key=lambda each: times(each.local_error, each.tolerance))
    if every:
        _sites(candidate.sites, candidate.divergences)
    elif beyond := [each for each in _worst(candidate.sites) if each.status == "violated"]:
        _sites(beyond, candidate.divergences)
    elif carry := [each for each in _worst(candidate.sites) if each.local_error > CARRIES]:
        kept = sorted(carry, key=lambda each: each.local_error)[-MOST:]
        _sites([each for each in carry if each in kept], ())
        line("What rounding costs most, of each kind of site the worst (--all lists every site).")
    else:
        share = times(worst.local_error, worst.tolerance)
        line(
            f"worst site: {worst.site}, {scientific(worst.local_error)}, {share:.0%} of what rounding explains (--all lists every site)"
        )
    if candidate.resolution > SEEN:
        line(
            f"Not every fault could be seen here: at {coarsest(candidate).site} a change of less than {candidate.resolution:.1%} is within "
            f"rounding. {advice(candidate.model, traced=is_saved(candidate.model.source))}".rstrip()
        )
    if bad := [tensor for tensor in candidate.tensors if every or not tensor.explained]:
        line()
        weights(bad)
    if candidate.mechanisms is not None:
        show_mechanisms(candidate.mechanisms)
    if candidate.budget is not None:
        show_budget(candidate.budget, every)


def fields(spec: Sequence[Difference]) -> None:
    """What a candidate's files say otherwise, after a blank line; nothing where they do not."""
    if spec:
        line()
        rows = [(each.field, each.reference, each.candidate, blocks(each.blocks)) for each in spec]
        table(("its file says", "reference", "candidate", "blocks"), rows)


def weights(tensors: Iterable[Tensor]) -> None:
    """Tensor by tensor."""
    head = ("weight", "stored", "error", "its format costs", "median", "what")
    table(head, [
        (t.name, t.stored, scientific(t.relative_error), scientific(t.expected), scientific(t.median), t.what) for t in tensors
    ], right=head[2:5])  # fmt: skip


def _token(t: TokenDifference) -> tuple[str, ...]:
    byte = "" if t.byte is None else str(t.byte)
    prompt = f"not run: {t.text[:MOST_READ]!r}" if t.prompt is None else str(t.prompt + 1)
    return prompt, str(t.index), byte, _text(t.reference), _text(t.candidate), t.what


def _text(token: Token | None) -> str:
    return "" if token is None else token.text or f"token {token.id}"


def _flip(each: Flips) -> tuple[str, ...]:
    numbers = (each.experts, each.tokens, f"{each.margin:.1e}", f"{each.parted} of {each.tokens}")
    return (each.site, str(each.prompt + 1), *map(str, numbers))


def _divergence(each: Divergence) -> tuple[str, ...]:
    inherited = "" if each.inherited_error is None else scientific(each.inherited_error)
    return (
        each.site, blocks(each.layers), scientific(each.local_error), scientific(each.worst_token_error), scientific(each.tolerance),
        inherited, told(each),
    )  # fmt: skip


def _sites(sites: Sequence[SiteError], divergences: Sequence[Divergence]) -> None:
    faults = {(any_layer(each.site), layer) for each in divergences for layer in each.layers or (None,)}
    head = ("site", "status", "error", "worst token", "rounding", "own weights", "inherited", "reason")
    table(head, [
        (each.site, _status(each, faults), scientific(each.local_error), scientific(each.worst_token_error), scientific(each.tolerance),
         "" if each.own_error is None else scientific(each.own_error),
         "" if each.inherited_error is None else scientific(each.inherited_error),
         each.reason)
        for each in sites
    ], right=head[2:7])  # fmt: skip


def _status(each: SiteError, faults: Collection[tuple[str, int | None]]) -> str:
    """As recorded; or `explained`: beyond rounding by the reference's weights, by no more than how the candidate's are stored."""
    fault = (any_layer(each.site), layer_of(each.site)) in faults
    return "explained" if each.status == "violated" and not fault else each.status


def _worst(sites: Iterable[SiteError]) -> list[SiteError]:
    """Of each kind of site the worst, in dataflow order."""
    worst: dict[str, SiteError] = {}
    for each in sites:
        kind = any_layer(each.site)
        if each.status in ("holds", "violated") and (kind not in worst or each.local_error > worst[kind].local_error):
            worst[kind] = each
    return list(worst.values())


def blocks(layers: Sequence[int]) -> str:
    """`0 … 29`, `3`, `0, 4, 7 and 3 more`"""
    if len(layers) > 2 and list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]} … {layers[-1]}"
    return ", ".join(map(str, layers[:3])) + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
