"""What was done to a tensor, told from the tensor and the reference's: transposed, permuted, shifted, scaled, another one. **Change**: one
such thing; it is named where undoing it leaves what the format explains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from attrs import frozen

from llmtrace.schema.sites import Array

SHIFTS = (1, -1, 2, -2, 3, -3, 4, -4)
"""Rows by which tables are looked for."""
ROWS = 4096
"""Rows of an axis that are matched with each other at most: a table of products is made."""
SOLE = 0.999
"""Share of the squared error from which on it is one place's."""


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
    """The reference's other weights of the same axes, read when they are asked for, by name."""


Change = Callable[[Pair], Iterator[tuple[str, Array]]]
"""Yields what may have been done, in words, and the reference's tensor after that."""


def off(found: Array, expected: Array) -> float:
    """`‖found - expected‖ / ‖expected‖`; infinite for unlike shapes and what is not finite."""
    if found.shape != expected.shape:
        return np.inf
    e = expected.astype(np.float64)
    error, size = float(((found.astype(np.float64) - e) ** 2).sum()), float((e**2).sum())
    if not np.isfinite(error):
        return np.inf
    return float(np.sqrt(error / size)) if size else np.inf if error else 0.0


def recognise(pair: Pair, limit: float) -> str:
    """What was done to the candidate's tensor, in words; empty where nothing is recognised. `limit` is what its format explains."""
    if not np.isfinite(pair.candidate).all():
        return f"{int((~np.isfinite(pair.candidate)).sum()):,} numbers are NaN or infinite"
    if not pair.candidate.any():
        return "all zero"
    for change in CHANGES:
        for words, changed in change(pair):
            if off(pair.candidate, changed) <= limit:
                return words
    return _place(pair)


def _transposed(pair: Pair) -> Iterator[tuple[str, Array]]:
    if pair.reference.ndim >= 2:
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
            if abs(factor) > 1e-6:
                yield f"multiplied by {factor:.4g}", r * factor


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


CHANGES: Sequence[Change] = (_plus_one, _scaled, _transposed, _halves, _shifted, _permuted, _other)
"""What is tried, cheapest first."""


def _place(pair: Pair) -> str:
    """Where the error is, if it is in one number, or in one slice of an axis."""
    if pair.reference.shape != pair.candidate.shape:
        return f"has shape {list(pair.candidate.shape)} instead of {list(pair.reference.shape)}"
    squares = (pair.candidate.astype(np.float64) - pair.reference) ** 2
    total = float(squares.sum())
    if not total:
        return ""
    at = np.unravel_index(int(squares.argmax()), squares.shape)
    if float(squares[at]) >= SOLE * total:
        where = ", ".join(map(str, map(int, at)))
        return f"one number differs: [{where}] is {pair.candidate[at]:.4g} instead of {pair.reference[at]:.4g}"
    for axis, name in enumerate(pair.axes):
        each = squares.sum(tuple(other for other in range(squares.ndim) if other != axis))
        if len(each) > 1 and float(each.max()) >= SOLE * total:
            return f"only {name} {int(each.argmax())} differs"
    return ""
