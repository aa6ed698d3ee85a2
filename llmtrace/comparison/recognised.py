"""What was done to a tensor, told from the tensor and the reference's: transposed, permuted, shifted, scaled, another one. A change is
named where undoing it leaves what the format explains.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from attrs import frozen

from llmtrace.comparison.orders import ROWS, copied, cosines, permuted, rows_permuted
from llmtrace.comparison.pair import Change, Pair
from llmtrace.schema.sites import Array

SHIFTS = (1, -1, 2, -2, 3, -3, 4, -4)
"""Rows by which tables are looked for."""
SOLE, MOST, HALF = 0.999, 0.9, 0.5
"""Shares of the squared error from which on it is one place's, mostly one number's, or one place's where the rest is explained."""
BITS, BLOCKS = (8, 6, 5, 4, 3, 2), (32, 64, 128, 0)
"""Roundings that are looked for, the finest first; a block of 0 numbers is a whole row."""
SOME, NOISE = 64, 4
"""Rows that are looked at before all are; times the root mean square that a number may be off by for its format."""
PIECE = 1 << 16
"""Numbers that are squared and summed at once."""


@frozen
class Done:
    """What was done to a tensor."""

    words: str
    """Empty where nothing is recognised."""
    reordered: bool = False
    """Whether it holds the reference's numbers in another order along its axes."""


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


def recognise(pair: Pair, limit: float) -> Done:
    """What was done to the candidate's tensor. `limit` is what its format explains."""
    if not np.isfinite(pair.candidate).all():
        return Done(_not_finite(pair.candidate))
    if not np.isfinite(pair.reference).all():
        return Done(f"in the reference, {_not_finite(pair.reference)}")
    if not pair.candidate.any():
        return Done("all zero")
    if pair.candidate.size > 1 and (pair.candidate == pair.candidate.flat[0]).all():
        return Done(f"all {pair.candidate.flat[0]:.4g}")
    for change in CHANGES:
        for words, changed in change(pair):
            if off(pair.candidate, changed) <= limit:
                return Done(words, change in REORDERING)
    return Done(_place(pair, limit) or _rounding(pair, limit))


def _not_finite(found: Array) -> str:
    """`1 number is NaN: [3, 5]`"""
    nan, infinite = np.isnan(found), np.isinf(found)
    count = int(nan.sum() + infinite.sum())
    what = " or ".join(name for name, there in (("NaN", nan), ("infinite", infinite)) if there.any())
    if count > 1:
        return f"{count:,} numbers are {what}"
    return f"1 number is {what}: [{', '.join(map(str, np.argwhere(nan | infinite)[0].tolist()))}]"


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


def _other(pair: Pair) -> Iterator[tuple[str, Array]]:
    for name, read in pair.others.items():
        yield f"holds {name}", read()


CHANGES: Sequence[Change] = (
    _cast, _plus_one, _scaled, _transposed, _halves, _shifted, permuted, rows_permuted, copied, _other
)  # fmt: skip
"""What is tried, cheapest first."""
REORDERING = (_halves, permuted, rows_permuted)
"""Those that leave every number and its row as they are, in other places."""


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
    for axis in range(squares.ndim):
        each = squares.sum(tuple(other for other in range(squares.ndim) if other != axis))
        if len(each) > 1 and alone(float(each.max())):
            return _slice(pair, limit, axis, int(each.argmax()))
    return ""


def _slice(pair: Pair, limit: float, axis: int, at: int) -> str:
    """One slice of an axis that differs: a copy of another, or what it may be."""
    name, ours = pair.axes[axis], np.moveaxis(pair.reference, axis, 0)
    found = pair.candidate.take(at, axis)
    if len(ours) > ROWS:  # fewer are matched with each other
        like = int(cosines(ours, found[None]).argmax())
        if like != at and off(found, ours[like]) <= limit:
            return f"{name} {at} holds {name} {like}"
    return f"only {name} {at} differs"


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
