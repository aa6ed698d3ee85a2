"""Both sides' weights, tensor by tensor, without running anything."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial

import numpy as np
from attrs import evolve

from llmtrace.comparison.blocks import beyond_blocks
from llmtrace.comparison.formats import LEVELS, MORE, ROUNDED, Tensor, coarse, cost, plain
from llmtrace.comparison.overlaid import Without
from llmtrace.comparison.pair import Pair
from llmtrace.comparison.recognised import off, recognise
from llmtrace.comparison.sides import Side
from llmtrace.overlaid import Over
from llmtrace.schema.evaluate import Equations, Weights
from llmtrace.schema.precision import ROUNDOFF
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Weight, any_layer, needed
from llmtrace.spec import Mixer, ModelSpec

EXACT = 4 * ROUNDOFF["float32"]
"""What two readings of the same numbers in float32 may differ by."""


class Weighing:
    """The weights of two sides, compared as they are asked for; each once."""

    def __init__(self, reference: Side, candidate: Side) -> None:
        """A weight that either side lacks is left out."""
        self._needed = _needed(reference.spec)
        self._reference, self._candidate = reference.equations.weights, candidate.equations.weights
        self._ours, self._theirs = reference.stored, candidate.stored
        self._tied = reference.spec.unembed.tied and candidate.spec.unembed.tied
        self._found: dict[str, Tensor] = {}
        self._reordered: set[str] = set()

    def weigh(self, names: Iterable[str]) -> None:
        """Compare some now, while they are at hand."""
        for name in names:
            if name in self._found or name not in self._reference or name not in self._candidate:
                continue
            if self._tied and name == "unembed.W_U" and "embed.W_E" in self._found:  # the same tensor on both sides
                self._found[name] = evolve(self._found["embed.W_E"], name=name)
                continue
            kinds = self._ours.get(name, ""), self._theirs.get(name, "")
            self._found[name], reordered = _tensor(
                self._needed[name], self._needed, self._reference, self._candidate, *kinds
            )
            if reordered:
                self._reordered.add(name)

    def reordered(self, name: str) -> bool:
        """Whether a weight that was compared is the reference's in another order."""
        return name in self._reordered

    def tensors(self) -> list[Tensor]:
        """Each weight that the reference's equations read, in dataflow order."""
        self.weigh(self._needed)
        return list(_beside_the_others([self._found[name] for name in self._needed if name in self._found]))


def with_own_weights(reference: Equations, candidate: Equations) -> Equations:
    """The reference's equations with the candidate's weights; what it has none of, as of a norm that it leaves out, is the reference's.

    Of a block that could not be read, lacking weights say nothing of what it computes: they stay lacking.
    """
    unread = tuple(
        f"blocks.{layer}."
        for layer, block in enumerate(candidate.spec.blocks)
        if any(isinstance(branch.module, Mixer) for branch in block.branches)
    )
    return evolve(reference, weights=Over(candidate.weights, Without(reference.weights, unread)))


def rows(weight: Weight) -> tuple[int, ...]:
    """The axes that a format's blocks run along: those that products sum over, or the last."""
    axes = weight.axes
    if "head" in axes and axes[-1] == "d_model":  # W_O sums over heads and their channels
        return tuple(at for at, name in enumerate(axes) if name in ("head", "d_value"))
    if "d_mlp" in axes and axes[-1] == "d_model":
        return (axes.index("d_mlp"),)
    return (axes.index("d_model"),) if "d_model" in axes else (len(axes) - 1,)


def _needed(spec: ModelSpec) -> dict[str, Weight]:
    return {weight.name: weight for weight, _ in needed(spec)}


def _tensor(
    weight: Weight, among: Mapping[str, Weight], reference: Weights, candidate: Weights, ours: str, theirs: str
) -> tuple[Tensor, bool]:
    """How far a weight is off and why; and whether it is the reference's in another order."""
    r, c = np.asarray(reference[weight.name]), np.asarray(candidate[weight.name])
    error = off(c, r)
    if not error:
        return Tensor(weight.name, theirs, 0.0, 0.0, 0.0, True), False
    parts = [cost(kind, r, rows(weight)) for kind in {ours, theirs} if kind and coarse(kind)]
    expected = float(np.sqrt(sum(part * part for part in parts)))
    limit = EXACT if np.isnan(expected) else max(EXACT, MORE * expected)
    if error <= limit:
        alone = not ours or plain(ours) not in LEVELS  # blocks of both sides are no one's
        pair = Pair(weight.name, weight.axes, r, c, {}, rows(weight))
        broken = beyond_blocks(theirs, pair, expected) if alone else ""
        return Tensor(weight.name, theirs, error, expected, error, not broken, broken), False
    done = recognise(
        Pair(weight.name, weight.axes, r, c, _others(weight, among.values(), reference), rows(weight)),
        max(limit, 1e-3 * ROUNDED),
    )
    return Tensor(weight.name, theirs, error, expected, error, False, done.words), done.reordered


def others(equations: Equations, weight: Weight) -> dict[str, Callable[[], Array]]:
    """The model's other weights of the same shape: first those of this part, then of this block, then of others; read when asked for."""
    return _others(weight, _needed(equations.spec).values(), equations.weights)


def _others(weight: Weight, among: Collection[Weight], weights: Weights) -> dict[str, Callable[[], Array]]:
    """Vectors may be any other; matrices one of this part, the same of other blocks, or one with the axes turned, as the embedding's."""
    part = weight.name.rpartition(".")[0]
    block = weight.name[: weight.name.index(".", len("blocks."))] + "." if weight.name.startswith("blocks.") else part
    found: dict[str, Callable[[], Array]] = {}
    for other in sorted(among, key=lambda each: (not each.name.startswith(part), not each.name.startswith(block))):
        if other.name == weight.name or other.name not in weights:
            continue
        near = other.name.startswith(part) or any_layer(other.name) == any_layer(weight.name)
        if other.shape == weight.shape and (near or len(weight.shape) == 1):
            found[other.name] = partial(_read, weights, other.name)
        elif len(weight.axes) == 2 and other.axes == weight.axes[::-1] and (near or "vocab" in weight.axes):
            found[other.name] = partial(_read_turned, weights, other.name)
    return found


def _read(weights: Weights, name: str) -> Array:
    return np.asarray(weights[name])


def _read_turned(weights: Weights, name: str) -> Array:
    return np.asarray(weights[name]).T


def _beside_the_others(tensors: list[Tensor]) -> Iterator[Tensor]:
    """With the median error of the same weight in all blocks; of formats that are not known, what is beyond it is not explained."""
    kinds: dict[tuple[str, str], list[float]] = {}
    for tensor in tensors:
        kinds.setdefault((any_layer(tensor.name), tensor.stored), []).append(tensor.relative_error)
    for tensor in tensors:
        median = statistics.median(kinds[any_layer(tensor.name), tensor.stored])
        alone = np.isnan(tensor.expected)
        yield evolve(
            tensor, median=median, explained=tensor.relative_error <= MORE * median if alone else tensor.explained
        )
