"""Which weights are swapped, and which cannot be: those that differ by more than two readings in float32 do. What is one tensor on either side is
swapped as one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from attrs import frozen

from llmtrace.comparison.budget import Unswapped
from llmtrace.comparison.budget_bytes import bytes_of
from llmtrace.comparison.formats import Tensor
from llmtrace.comparison.sides import Side
from llmtrace.comparison.weights import EXACT
from llmtrace.protocol import SupportsReplacement
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import needed

TIED = ("embed.W_E", "unembed.W_U")
"""One tensor, where the spec says so."""


@frozen(eq=False)
class Part:
    """What is swapped at once."""

    names: tuple[str, ...]
    stored: str
    numbers: int
    bytes: int | None
    relative_error: float
    candidate: Mapping[str, Array]
    """The candidate's weights, read on access."""

    def weights(self) -> dict[str, Array]:
        """What is put into the reference."""
        return {name: np.asarray(self.candidate[name]) for name in self.names}


def parts(
    reference: Side, candidate: Side, able: SupportsReplacement, tensors: Sequence[Tensor]
) -> tuple[list[Part], list[Unswapped]]:
    """What differs and can be swapped, and what cannot; `tensors` are the weights that both sides have, compared."""
    found = {tensor.name: tensor for tensor in tensors}
    numbers = {weight.name: math.prod(weight.shape) for weight, _ in needed(reference.spec)}
    once = {*TIED} if candidate.spec.unembed.tied else set[str]()
    made: list[Part] = []
    refused = list(_lacking(reference, candidate))
    for names in _groups(reference, able, once, found):
        own = [found[name] for name in names if name in found]
        if not any(each.relative_error > EXACT for each in own):
            continue
        if why := _refused(able, names, found):
            refused.append(Unswapped(names, why))
            continue
        if once.issuperset(names):
            own = own[:1]
        sizes = [bytes_of(each.stored, numbers[each.name]) for each in own]
        size = None if None in sizes else sum(filter(None, sizes))
        worst = max(own, key=lambda each: each.relative_error)
        count = sum(numbers[each.name] for each in own)
        made.append(Part(names, worst.stored, count, size, worst.relative_error, candidate.equations.weights))
    return made, refused


def _groups(
    reference: Side, able: SupportsReplacement, once: set[str], found: Mapping[str, Tensor]
) -> Iterator[tuple[str, ...]]:
    """Weights in dataflow order, each with those that are one tensor with it, once."""
    groups = [set(group) for group in able.tied]
    if reference.spec.unembed.tied and once:
        groups = [*(group for group in groups if not group & once), once.union(*(g for g in groups if g & once))]
    done: set[str] = set()
    for name in found:
        group = next((group for group in groups if name in group), {name})
        if name not in done:
            done |= group
            yield (name, *sorted(group - {name}))


def _refused(able: SupportsReplacement, names: Sequence[str], found: Mapping[str, Tensor]) -> str:
    """Why some weights cannot be swapped together; empty where they can, as far as can be told before it is tried."""
    for name in names:
        if name not in found:
            return f"it is one tensor with {name}, which the candidate does not have"
        if not math.isfinite(found[name].relative_error):
            return found[name].what or "it has another shape, or numbers that are not finite"
        if name not in able.replaceable:
            return f"the reference cannot replace it: {able.irreplaceable.get(name, 'its numbers are not at hand')}"
    return ""


def _lacking(reference: Side, candidate: Side) -> Iterator[Unswapped]:
    """Weights of the reference's that the candidate has none of."""
    lacking = tuple(
        weight.name
        for weight, _ in needed(reference.spec)
        if weight.name in reference.equations.weights and weight.name not in candidate.equations.weights
    )
    if lacking:
        yield Unswapped(lacking, "the candidate has none, or none that can be read")
