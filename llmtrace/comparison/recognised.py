"""What was done to a tensor, told from the tensor and the reference's: transposed, permuted, shifted, scaled, another one. **Change**: one
such thing; it is named where undoing it leaves what the format explains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from attrs import frozen

from llmtrace.schema.sites import Array

SHIFTS = (1, -1, 2, -2, 3, -3, 4, -4)
"""Rows by which tables are looked for."""
ROWS = 4096
"""Rows of an axis that are matched with each other at most: a table of products is made."""
SOLE, MOST, HALF = 0.999, 0.9, 0.5
"""Shares of the squared error from which on it is one place's, mostly one number's, or one place's where the rest is explained."""
BITS, BLOCKS = (8, 6, 5, 4, 3, 2), (32, 64, 128, 0)
"""Roundings that are looked for, the finest first; a block of 0 numbers is a whole row."""
SOME, NOISE = 64, 4
"""Rows that are looked at before all are; times the root mean square that a number may be off by for its format."""


PIECE = 1 << 16
"""Numbers that are squared and summed at once."""


@frozen
class Pair:
    """One weight of both sides."""

    name: str
    """By schema name."""
    axes: tuple[str, ...]
    """Of both."""
    reference: Array
    """The reference's."""
    candidate: Array
    """The candidate's, which may have another shape."""
    others: Mapping[str, Callable[[], Array]]
    """The reference's other weights of the same shape, read when they are asked for, by name."""
    rows: tuple[int, ...] = ()
    """The axes that a format's blocks run along; empty: the last."""


Change = Callable[[Pair], Iterator[tuple[str, Array]]]
"""Yields what may have been done, in words, and the reference's tensor after that."""


def off(found: Array, expected: Array) -> float:
    """`‖found - expected‖ / ‖expected‖`; infinite for unlike shapes and what is not finite."""
    if found.shape != expected.shape:
        return np.inf
    if found.strides != expected.strides:
        found, expected = (np.ascontiguousarray(x) for x in (found, expected))
    f, e = (x.ravel(order="K") for x in (found, expected))  # as they lie in memory, so that nothing is copied
    error = size = 0.0
    for at in range(
        0, len(f), PIECE
    ):  # so few that they stay in the cache, and that sums in float32 are exact to seven digits
        part = _single(e[at : at + PIECE])
        moved = _single(f[at : at + PIECE]) - part
        error += float(moved @ moved)
        size += float(part @ part)
    if not math.isfinite(error):
        return math.inf
    return math.sqrt(error / size) if size else math.inf if error else 0.0


def _single(x: Array) -> Array:
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)


def recognise(pair: Pair, limit: float) -> str:
    """What was done to the candidate's tensor, in words; empty where nothing is recognised. `limit` is what its format explains."""
    if not np.isfinite(pair.candidate).all():
        return f"{int((~np.isfinite(pair.candidate)).sum()):,} numbers are NaN or infinite"
    if not pair.candidate.any():
        return "all zero"
    if pair.candidate.size > 1 and (pair.candidate == pair.candidate.flat[0]).all():
        return f"all {pair.candidate.flat[0]:.4g}"
    for change in CHANGES:
        for words, changed in change(pair):
            if off(pair.candidate, changed) <= limit:
                return words
    return _place(pair, limit) or _rounding(pair, limit)


def _transposed(pair: Pair) -> Iterator[tuple[str, Array]]:
    if pair.reference.ndim < 2:
        return
    if pair.reference.ndim == 3 and pair.axes[0] in ("head", "kv_head"):  # as it is stored, one matrix of all heads
        at = pair.axes.index("d_model")
        heads = np.moveaxis(pair.reference, at, -1)
        flat = heads.reshape(-1, heads.shape[-1])
        turned = np.ascontiguousarray(flat.T).reshape(heads.shape)
        words = "transposed" if flat.shape[0] == flat.shape[1] else "transposed, and read in the old shape"
        yield words, np.moveaxis(turned, -1, at)
        return
    turned = pair.reference.swapaxes(-1, -2)
    yield "transposed", turned
    if turned.shape != pair.reference.shape:
        yield "transposed, and read in the old shape", np.ascontiguousarray(turned).reshape(pair.reference.shape)


def _plus_one(pair: Pair) -> Iterator[tuple[str, Array]]:
    if pair.reference.ndim <= 2:
        yield "less by 1: the weight is stored without its 1", pair.reference - 1
        yield "more by 1: the 1 is added twice", pair.reference + 1


def _scaled(pair: Pair) -> Iterator[tuple[str, Array]]:
    if pair.reference.shape == pair.candidate.shape:
        r = pair.reference.astype(np.float64)
        if size := float((r * r).sum()):
            factor = float((r * pair.candidate).sum()) / size
            for near in dict.fromkeys((round(factor), round(factor, 1), round(factor, 2), factor)):
                if abs(near) > 1e-6 and near != 1:
                    yield f"multiplied by {near:.4g}", r * near


def _cast(pair: Pair) -> Iterator[tuple[str, Array]]:
    """Through a smaller type on its way, whatever it is stored in now."""
    import ml_dtypes

    r = pair.reference.astype(np.float32)
    for name, dtype in (("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)):
        yield f"rounded to {name}", r.astype(dtype).astype(np.float32)


def _halves(pair: Pair) -> Iterator[tuple[str, Array]]:
    """Channels of a head in the other layout of rotary pairs."""
    for axis, name in enumerate(pair.axes):
        width = pair.reference.shape[axis]
        if name == "d_head" and width % 2 == 0:
            pairs = np.arange(width).reshape(2, -1).T.ravel()
            yield "rows of each head permuted: rotary pairs as neighbours", pair.reference.take(pairs, axis)
            yield (
                "rows of each head permuted: rotary pairs half a head apart",
                pair.reference.take(np.argsort(pairs), axis),
            )


def _shifted(pair: Pair) -> Iterator[tuple[str, Array]]:
    for axis, name in enumerate(pair.axes):
        if name in ("vocab", "position"):
            for shift in SHIFTS:
                way = "up" if shift < 0 else "down"
                yield f"rows of {name} shifted {way} by {abs(shift)}", np.roll(pair.reference, shift, axis)


def _permuted(pair: Pair) -> Iterator[tuple[str, Array]]:
    """Each slice along an axis as the reference's that it is most like, if that is another order of the same; and each row of all heads."""
    if pair.reference.shape != pair.candidate.shape or pair.reference.ndim < 2:
        return
    for axis, name in enumerate(pair.axes):
        if (order := _order(*(np.moveaxis(x, axis, 0) for x in (pair.reference, pair.candidate)))) is not None:
            yield _several(name, order), pair.reference.take(order, axis)
    if (
        "d_model" in pair.axes and pair.reference.ndim == 3
    ):  # rows of a matrix as it is stored, whichever head they are of
        at = pair.axes.index("d_model")
        ours, theirs = (np.moveaxis(x, at, -1) for x in (pair.reference, pair.candidate))
        if (order := _order(*(x.reshape(-1, x.shape[-1]) for x in (ours, theirs)))) is not None:
            moved = ours.reshape(-1, ours.shape[-1])[order].reshape(ours.shape)
            rows = " ".join(name for name in pair.axes if name != "d_model")
            yield _several(f"({rows})", order), np.moveaxis(moved, -1, at)


def _order(reference: Array, candidate: Array) -> Array | None:
    """Which row of the reference each row of the candidate is, if they are the same in another order."""
    count = len(reference)
    if not 1 < count <= ROWS:
        return None
    ours, theirs = (x.reshape(count, -1).astype(np.float32) for x in (reference, candidate))
    ours, theirs = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30) for x in (ours, theirs))
    alike = theirs @ ours.T
    order = alike.argmax(1)
    taken = np.zeros(count, bool)
    for row in np.argsort(-alike.max(1)):  # rows that are like several, zeros for one, take what is left
        if taken[order[row]]:
            order[row] = np.where(taken, -np.inf, alike[row]).argmax()
        taken[order[row]] = True
    return order if (order != np.arange(count)).any() else None


def _several(axis: str, order: Array) -> str:
    moved = np.nonzero(order != np.arange(len(order)))[0]
    if len(moved) == 2:
        return f"{axis} {moved[0]} and {moved[1]} swapped"
    return f"{len(moved)} of {len(order)} along {axis} permuted"


def _other(pair: Pair) -> Iterator[tuple[str, Array]]:
    for name, read in pair.others.items():
        yield f"holds {name}", read()


CHANGES: Sequence[Change] = (_cast, _plus_one, _scaled, _transposed, _halves, _shifted, _permuted, _other)
"""What is tried, cheapest first."""


def _place(pair: Pair, limit: float) -> str:
    """Where the error is, if it is in one number, or in one slice of an axis, and the rest is within `limit`."""
    if pair.reference.shape != pair.candidate.shape:
        return f"has shape {list(pair.candidate.shape)} instead of {list(pair.reference.shape)}"
    reference = pair.reference.astype(np.float64)
    squares = (pair.candidate - reference) ** 2
    total = float(squares.sum())
    if not total:
        return ""
    explained = limit**2 * float((reference**2).sum())
    at = np.unravel_index(int(squares.argmax()), squares.shape)

    def alone(part: float) -> bool:
        """Whether the error is there, but for what the format explains, which may be no small part of it."""
        return part >= SOLE * total or (part >= HALF * total and total - part <= explained)

    one = float(squares[at])
    if alone(one) or (one >= MOST * total and squares.size > 2 / (1 - MOST)):
        where = ", ".join(map(str, map(int, at)))
        mostly = "" if alone(one) else "mostly, "
        return f"{mostly}one number differs: [{where}] is {pair.candidate[at]:.4g} instead of {pair.reference[at]:.4g}"
    for axis, name in enumerate(pair.axes):
        each = squares.sum(tuple(other for other in range(squares.ndim) if other != axis))
        if len(each) > 1 and alone(float(each.max())):
            return f"only {name} {int(each.argmax())} differs"
    return ""


def _rounding(pair: Pair, limit: float) -> str:
    """Rounded to levels that are even in each block: no number is off by more than half a step, and on the whole they are by as much."""
    if pair.reference.ndim < 2:
        return ""
    rows = pair.rows or (pair.reference.ndim - 1,)
    ours, theirs = (_in_rows(x, rows) for x in (pair.reference, pair.candidate))
    for bits in BITS:
        for length in BLOCKS:
            size = length or ours.shape[1]
            if ours.shape[1] % size:
                continue
            if all(_is_rounded(ours[part], theirs[part], size, bits, limit) for part in (slice(SOME), slice(None))):
                blocks = f"blocks of {length}" if length else "whole rows"
                return f"rounded, as {bits} bits in {blocks} are"
    return ""


def _is_rounded(ours: Array, theirs: Array, size: int, bits: int, limit: float) -> bool:
    """Whether rows are rounded so, and after that by what `limit` explains."""
    r, c = (x.reshape(-1, size) for x in (ours, theirs))
    step = np.abs(r).max(1, keepdims=True) / (2 ** (bits - 1) - 1)
    step = np.where(step, step, 1)
    slack = NOISE * limit * np.sqrt((r * r).mean(1, keepdims=True)) / step
    shares = np.abs(c - r) / step
    return bool((shares <= 0.501 + slack).all() and slack.max() <= 0.25 and (shares**2).mean() >= 0.8 / 12)


def _in_rows(x: Array, rows: tuple[int, ...]) -> Array:
    """[other axes, the axes of blocks], in float64."""
    others = [axis for axis in range(x.ndim) if axis not in rows]
    width = int(np.prod([x.shape[axis] for axis in rows]))
    flat: Array = x.transpose(*others, *rows).reshape(-1, width).astype(np.float64)
    return flat
