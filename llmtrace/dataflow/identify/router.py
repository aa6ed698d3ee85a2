"""How a router's logits become a choice of experts and their weights. **Ranked**: the numbers of which the largest are chosen; **affinity**:
what the equations call them before a correction, a bias that counts for the choice only.

The ranked numbers show the scoring and the correction, the weights the rest: whether they sum to one, and what they are multiplied by. Where
nothing is corrected, the choice is the same before and after a softmax or a sigmoid, and the weights alone decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

import numpy as np
from attrs import evolve, frozen

from llmtrace.dataflow.identify.decimals import decimal, settle, shortest
from llmtrace.dataflow.identify.measured import FLOAT32, Unfit, double, single, worst
from llmtrace.schema.functions import sigmoid, softmax
from llmtrace.schema.moe import in_groups, shares
from llmtrace.schema.sites import Array
from llmtrace.spec import Groups

Scoring: TypeAlias = Literal["softmax", "topk_softmax", "sigmoid", "topk_sigmoid", "sparsemixer"]
Choosing: TypeAlias = Callable[[Array], tuple[Array, Array, Array]]
"""From logits [token expert] to what is ranked [token expert], the experts chosen and their weights [token choice]."""
ROWS = 96
SIZES = (0.25, 1.0, 3.0, 1.0)
"""Of logits."""
LEVELS = (0.0, 0.0, 0.0, -8.0)
"""Where they lie: low ones show what is added to the sum of weights."""
CLEARER = 0.5
"""How many times nearer weights must be with something added to their sum than without."""
NOISE = 64
"""Units that the functions and sums of a router may err by, relative to the largest number that they take."""
AFFINITY: dict[Scoring, Callable[[Array], Array]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "topk_softmax": lambda x: x,
    "topk_sigmoid": lambda x: x,
}
APART = 1.0
"""The largest distance of logits that is tried for what a sparse mixer counts as near."""
MOST = 1.0
"""What is added to a sum of weights is at most this."""


@frozen(eq=False)
class FoundRouter:
    """The words of a `Moe` record."""

    choices: int
    scoring: Scoring
    renormalise: bool
    scale: float
    correction: Array | None
    """[expert]; None where all measured nought."""
    eps: float = 0.0
    """Of `renormalise`."""
    near: float = 0.0
    """Of a sparse mixer."""
    groups: Groups | None = None
    """From which experts are chosen."""


def find_router(
    piece: Choosing, experts: int, *, candidates: Iterable[float] = (), unit: float = FLOAT32, ordered: bool = False
) -> FoundRouter | Unfit:
    """What a piece makes of logits. `candidates`: numbers that may be its scale; `ordered`: the best must come first."""
    rng = np.random.default_rng(0)
    logits = double(
        single(rng.normal(size=(ROWS, experts)) * np.resize(SIZES, (ROWS, 1)) + np.resize(LEVELS, (ROWS, 1)))
    )
    if unit != FLOAT32:
        logits = logits.astype(np.float16).astype(np.float64)
    ranked, index, weights = piece(single(logits))
    ranked, weights = double(ranked), double(weights)
    hidden = _hidden(ranked)
    filled = bool(hidden.any()) and bool(np.isfinite(ranked).all())
    ranked = np.where(hidden, -np.inf, ranked)
    if ranked.shape != logits.shape or index.shape != weights.shape or index.ndim != 2 or len(index) != ROWS:
        return Unfit(
            f"of {list(logits.shape)} logits it makes weights {list(weights.shape)} of experts {list(index.shape)}"
        )
    if not np.isfinite(ranked[~hidden]).all() or not np.isfinite(weights).all() or hidden.all(0).any():
        return Unfit("its numbers are not all finite")
    if not _chosen(ranked, index, unit):
        return Unfit("the experts that it chooses are not those that it ranks highest")
    if ordered and (np.diff(np.take_along_axis(ranked, index, -1), axis=-1) > 0).any():
        return Unfit("the experts that it chooses do not come best first")
    for scoring, affinity in AFFINITY.items():
        expected = affinity(logits)
        correction = np.nanmedian(np.where(hidden, np.nan, ranked - expected), axis=0)
        noise = NOISE * unit * (1 + np.abs(expected) + np.abs(correction))
        if worst(np.where(hidden, 0, ranked), np.where(hidden, 0, expected + correction), noise) <= 1:
            none = bool((np.abs(correction) <= noise.max(0)).all())
            groups = _groups(hidden, expected + correction, noise)
            if isinstance(groups, Unfit):
                return groups
            if filled and (expected + correction).min() < 0:
                return Unfit("experts of groups that are not chosen rank as nought, which others may be below")
            same = {"topk_softmax", "topk_sigmoid"} if scoring == "topk_softmax" else set()
            others: list[Scoring] = [
                scoring,
                *(each for each in AFFINITY if each != scoring and (none or each in same)),
            ]
            fit = _weighted(logits, index, weights, others, None if none else correction, list(candidates), unit)
            if isinstance(fit, FoundRouter):
                return evolve(fit, groups=groups)
            mixed = _sparse(piece, logits, index, weights, unit) if none and same and groups is None else None
            return fit if mixed is None else mixed
    return Unfit("what it ranks experts by is no softmax or sigmoid of its logits, nor these, with or without a bias")


def _hidden(ranked: Array) -> Array:
    """Which experts may not be chosen: they rank below all, or as nought where all others are above it."""
    below = np.isneginf(ranked)
    return below if below.any() or (ranked < 0).any() else ranked == 0


def _groups(hidden: Array, ranked: Array, noise: Array) -> Groups | Unfit | None:
    """The groups that are hidden from the choice, but for those that are best; None where nothing is hidden."""
    if not hidden.any():
        return None
    experts = hidden.shape[1]
    for count in (each for each in range(2, experts + 1) if experts % each == 0):
        whole = hidden.reshape(len(hidden), count, -1)
        seen = np.unique((~whole.all(-1)).sum(-1))
        if (whole.any(-1) != whole.all(-1)).any() or len(seen) > 1:
            continue
        for best in range(1, experts // count + 1):
            groups = Groups(count, int(seen[0]), best)
            unlike = (in_groups(groups, ranked) == hidden).any(-1)
            clear = _apart(groups, ranked) > 2 * best * noise.max(-1)
            if not unlike[clear].any() and clear.sum() > len(hidden) // 2:
                return groups
    return Unfit("it hides experts from the choice, and not those of groups that rank lower")


def _apart(groups: Groups, ranked: Array) -> Array:
    """By how much the last group that is chosen ranks above the next, [token]."""
    each = np.sort(ranked.reshape(len(ranked), groups.count, -1), axis=-1)[..., -groups.best :].sum(-1)
    order = np.sort(each, axis=-1)[:, ::-1]
    return np.asarray(order[:, groups.choices - 1] - order[:, groups.choices])


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
    small = [decimal(each) for each in candidates if 0 < each <= MOST]
    for scoring in scorings:
        for renormalise, added in ((False, [0.0]), (True, [0.0, *small])):
            best: tuple[float, FoundRouter] | None = None
            for eps in added:
                chosen = np.take_along_axis(AFFINITY[scoring](logits), index, -1)
                expected, noise = _weights(scoring, renormalise, chosen, unit, eps)
                sharp = expected / noise**2
                measured = float((weights * sharp).sum() / (expected * sharp).sum())
                scale = settle(measured, 16 * unit * abs(measured), candidates, exact=(1.0,)) if measured else 0.0
                off = worst(weights, scale * expected, abs(scale) * noise + 2.0**-126)
                nearest = min(nearest, off)
                if off <= 1 and scale and (best is None or off < CLEARER * best[0]):
                    best = off, FoundRouter(index.shape[1], scoring, renormalise, scale, correction, eps)
            if best is not None:
                return best[1]
    return Unfit(
        f"the weights of its experts are off by {nearest:.3g} times what rounding explains, however they are scored"
    )


def _weights(scoring: Scoring, renormalise: bool, chosen: Array, unit: float, eps: float) -> tuple[Array, Array]:
    """The weights before their scale, and what rounding may make of them; of affinities [token choice]."""
    if scoring in ("topk_softmax", "topk_sigmoid"):
        chosen = softmax(chosen) if scoring == "topk_softmax" else sigmoid(chosen)
    noise = NOISE * unit * chosen + 8 * unit  # a sigmoid errs by as much, whatever its size
    if not renormalise:
        return chosen, noise
    total = chosen.sum(-1, keepdims=True) + eps
    return chosen / total, (noise + chosen * noise.sum(-1, keepdims=True) / total) / total


def _sparse(piece: Choosing, logits: Array, index: Array, weights: Array, unit: float) -> FoundRouter | None:
    """A sparse mixer, if it is one: weights are shares of a softmax over those that are near."""
    if logits.shape[1] < 2:
        return None
    low, high = 1e-4, APART
    for grid in (np.geomspace(low, high, ROWS), None, None):
        apart = np.linspace(low, high, ROWS) if grid is None else grid
        rows = np.full((ROWS, logits.shape[1]), -3.0)
        rows[:, 0], rows[:, 1] = 1.0, 1 - apart
        found = double(piece(single(rows))[2])[:, 0]
        counted = np.abs(found - 1 / (1 + np.exp(-apart))) < np.abs(found - 1)
        last = int(counted.sum())
        if not 0 < last < ROWS or not counted[:last].all():
            return None
        low, high = float(apart[last - 1]), float(apart[last])
    near = shortest(low - 2 * unit, high + 2 * unit)
    expected = shares(logits, index, near)
    if worst(weights, expected, NOISE * unit * (1 + expected)) > 1:
        return None
    return FoundRouter(index.shape[1], "sparsemixer", False, 1.0, None, near=near)
