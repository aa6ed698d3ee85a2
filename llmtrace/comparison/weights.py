"""Both sides' weights, tensor by tensor, without running anything."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial

import numpy as np
from attrs import evolve

from llmtrace.comparison.formats import MORE, ROUNDED, Tensor, coarse, cost
from llmtrace.comparison.recognised import Pair, off, recognise
from llmtrace.schema.evaluate import Equations, Weights
from llmtrace.schema.precision import ROUNDOFF
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Weight, any_layer, steps
from llmtrace.spec import ModelSpec

EXACT = 4 * ROUNDOFF["float32"]
"""What two readings of the same numbers in float32 may differ by."""
CONTRACTED = ("d_model", "d_mlp", "d_value", "head", "d_shared")
"""Axes that products sum over, which is along which formats have their blocks."""


def compare_weights(
    spec: ModelSpec,
    reference: Weights,
    candidate: Weights,
    ours: Mapping[str, str],
    theirs: Mapping[str, str],
    names: Collection[str] | None = None,
) -> list[Tensor]:
    """Each weight that the reference's equations read, in dataflow order; `names` are those to look at (default: all).

    `ours` and `theirs` are the types in which the two sides store them. One that either side lacks is left out.
    """
    needed = _needed(spec)
    found = [
        _tensor(weight, needed, reference, candidate, ours.get(weight.name, ""), theirs.get(weight.name, ""))
        for weight in needed.values()
        if (names is None or weight.name in names) and weight.name in reference and weight.name in candidate
    ]
    return list(_beside_the_others(found))


def rows(weight: Weight) -> tuple[int, ...]:
    """The axes that a format's blocks run along: those that products sum over, or the last."""
    axes = weight.axes
    if "head" in axes and axes[-1] == "d_model":  # W_O sums over heads and their channels
        return tuple(at for at, name in enumerate(axes) if name in ("head", "d_value"))
    if "d_mlp" in axes and axes[-1] == "d_model":
        return (axes.index("d_mlp"),)
    return (axes.index("d_model"),) if "d_model" in axes else (len(axes) - 1,)


def _needed(spec: ModelSpec) -> dict[str, Weight]:
    return {weight.name: weight for step in steps(spec).values() for weight in step.weights.values()}


def _tensor(
    weight: Weight, needed: Mapping[str, Weight], reference: Weights, candidate: Weights, ours: str, theirs: str
) -> Tensor:
    r, c = np.asarray(reference[weight.name]), np.asarray(candidate[weight.name])
    error = off(c, r)
    parts = [cost(kind, r, rows(weight)) for kind in {ours, theirs} if kind and coarse(kind)]
    expected = float(np.sqrt(sum(part * part for part in parts)))
    limit = EXACT if np.isnan(expected) else max(EXACT, MORE * expected)
    if error <= limit:
        return Tensor(weight.name, theirs, error, expected, error, True)
    what = recognise(
        Pair(weight.name, weight.axes, r, c, _others(weight, needed.values(), reference)), max(limit, 1e-3 * ROUNDED)
    )
    return Tensor(weight.name, theirs, error, expected, error, False, what)


def others(equations: Equations, weight: Weight) -> dict[str, Callable[[], Array]]:
    """The model's other weights of the same shape: first those of this part, then the same of other blocks; read when asked for."""
    return _others(weight, _needed(equations.spec).values(), equations.weights)


def _others(weight: Weight, needed: Collection[Weight], weights: Weights) -> dict[str, Callable[[], Array]]:
    part = weight.name.rpartition(".")[0]
    alike = [
        other.name
        for other in needed
        if other.name != weight.name and other.shape == weight.shape and other.name in weights
        and (other.name.startswith(part) or any_layer(other.name) == any_layer(weight.name))
    ]  # fmt: skip
    return {name: partial(_read, weights, name) for name in sorted(alike, key=lambda name: not name.startswith(part))}


def _read(weights: Weights, name: str) -> Array:
    return np.asarray(weights[name])


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
