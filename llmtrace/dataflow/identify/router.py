"""How a router's logits become a choice of experts and their weights. **Ranked**: the numbers of which the largest are chosen; **affinity**:
what the equations call them before a correction, a bias that counts for the choice only.

The ranked numbers show the scoring and the correction, the weights the rest: whether they sum to one, and what they are multiplied by. Where
nothing is corrected, the choice is the same before and after a softmax or a sigmoid, and the weights alone decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

import numpy as np
from attrs import frozen

from llmtrace.dataflow.identify.decimals import settle
from llmtrace.dataflow.identify.measured import FLOAT32, Unfit, double, single, worst
from llmtrace.schema.functions import sigmoid, softmax
from llmtrace.schema.sites import Array

Scoring: TypeAlias = Literal["softmax", "topk_softmax", "sigmoid"]
Choosing: TypeAlias = Callable[[Array], tuple[Array, Array, Array]]
"""From logits [token expert] to what is ranked [token expert], the experts chosen and their weights [token choice]."""
ROWS = 96
SIZES = (0.25, 1.0, 3.0)
"""Of logits."""
NOISE = 64
"""Units that the functions and sums of a router may err by, relative to the largest number that they take."""
AFFINITY: dict[Scoring, Callable[[Array], Array]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "topk_softmax": lambda x: x,
}


@frozen(eq=False)
class FoundRouter:
    """The words of a `Moe` record."""

    choices: int
    scoring: Scoring
    renormalise: bool
    scale: float
    correction: Array | None
    """[expert]; None where all measured nought."""


def find_router(
    piece: Choosing, experts: int, *, candidates: Iterable[float] = (), unit: float = FLOAT32
) -> FoundRouter | Unfit:
    """What a piece makes of logits. `candidates`: numbers that may be its scale."""
    rng = np.random.default_rng(0)
    logits = double(single(rng.normal(size=(ROWS, experts)) * np.resize(SIZES, (ROWS, 1))))
    if unit != FLOAT32:
        logits = logits.astype(np.float16).astype(np.float64)
    ranked, index, weights = piece(single(logits))
    ranked, weights = double(ranked), double(weights)
    if ranked.shape != logits.shape or index.shape != weights.shape or index.ndim != 2 or len(index) != ROWS:
        return Unfit(
            f"of {list(logits.shape)} logits it makes weights {list(weights.shape)} of experts {list(index.shape)}"
        )
    if not np.isfinite(ranked).all() or not np.isfinite(weights).all():
        return Unfit("its numbers are not all finite")
    if not _chosen(ranked, index, unit):
        return Unfit("the experts that it chooses are not those that it ranks highest")
    for scoring, affinity in AFFINITY.items():
        expected = affinity(logits)
        correction = np.median(ranked - expected, axis=0)
        noise = NOISE * unit * (1 + np.abs(expected) + np.abs(correction))
        if worst(ranked, expected + correction, noise) <= 1:
            none = bool((np.abs(correction) <= noise.max(0)).all())
            others: list[Scoring] = [scoring, *(each for each in AFFINITY if each != scoring and none)]
            return _weighted(logits, index, weights, others, None if none else correction, list(candidates), unit)
    return Unfit("what it ranks experts by is no softmax or sigmoid of its logits, nor these, with or without a bias")


def _chosen(ranked: Array, index: Array, unit: float) -> bool:
    """Whether in each row those chosen are different ones, and none of the others ranks higher."""
    if (index < 0).any() or (index >= ranked.shape[1]).any() or (np.diff(np.sort(index, -1), axis=-1) == 0).any():
        return False
    least = np.take_along_axis(ranked, index, -1).min(-1)
    others = ranked.copy()
    np.put_along_axis(others, index, -np.inf, -1)
    return bool((others.max(-1) <= least + 4 * unit * (1 + np.abs(least))).all())


def _weighted(
    logits: Array, index: Array, weights: Array, scorings: list[Scoring], correction: Array | None, candidates: list[float],
    unit: float,
) -> FoundRouter | Unfit:  # fmt: skip
    """The first way of weighing that fits."""
    nearest = np.inf
    for scoring in scorings:
        for renormalise in (False, True):
            expected, noise = _weights(
                scoring, renormalise, np.take_along_axis(AFFINITY[scoring](logits), index, -1), unit
            )
            measured = float((weights * expected).sum() / (expected**2).sum())
            scale = settle(measured, 16 * unit * abs(measured), candidates, exact=(1.0,)) if measured else 0.0
            off = worst(weights, scale * expected, abs(scale) * noise + 2.0**-126)
            if off <= 1 and scale:
                return FoundRouter(index.shape[1], scoring, renormalise, scale, correction)
            nearest = min(nearest, off)
    return Unfit(
        f"the weights of its experts are off by {nearest:.3g} times what rounding explains, however they are scored"
    )


def _weights(scoring: Scoring, renormalise: bool, chosen: Array, unit: float) -> tuple[Array, Array]:
    """The weights before their scale, and what rounding may make of them; of affinities [token choice]."""
    if scoring == "topk_softmax":
        chosen = softmax(chosen)
    noise = NOISE * unit * chosen + 8 * unit  # a sigmoid errs by as much, whatever its size
    if not renormalise:
        return chosen, noise
    total = chosen.sum(-1, keepdims=True)
    return chosen / total, noise / total
