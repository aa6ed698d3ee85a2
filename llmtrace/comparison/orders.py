"""Slices of a tensor that stand elsewhere: another order of the same, or copies."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from llmtrace.comparison.pair import Pair
from llmtrace.schema.sites import Array

ROWS = 4096
"""Rows of an axis that are matched with each other at most: a table of products is made."""
LIKE = 0.95
"""Cosine from which on a slice is a copy of another: four bits leave 0.996."""
LISTED, SHOWN = 8, 3
"""Slices of an axis up to which their order is listed; copies that are told of."""


def permuted(pair: Pair) -> Iterator[tuple[str, Array]]:
    """Each slice along an axis as the reference's that it is most like, if that is another order of the same."""
    if pair.reference.shape != pair.candidate.shape or pair.reference.ndim < 2:
        return
    for axis, name in enumerate(pair.axes):
        if (order := _order(*(np.moveaxis(x, axis, 0) for x in (pair.reference, pair.candidate)))) is not None:
            yield _several(name, order), pair.reference.take(order, axis)


def rows_permuted(pair: Pair) -> Iterator[tuple[str, Array]]:
    """Rows of a matrix as it is stored, whichever head they are of."""
    if pair.reference.shape != pair.candidate.shape or pair.reference.ndim != 3 or "d_model" not in pair.axes:
        return
    at = pair.axes.index("d_model")
    ours, theirs = (np.moveaxis(x, at, -1) for x in (pair.reference, pair.candidate))
    if (order := _order(*(x.reshape(-1, x.shape[-1]) for x in (ours, theirs)))) is not None:
        moved = ours.reshape(-1, ours.shape[-1])[order].reshape(ours.shape)
        rows = " ".join(name for name in pair.axes if name != "d_model")
        yield _several(f"({rows})", order), np.moveaxis(moved, -1, at)


def copied(pair: Pair) -> Iterator[tuple[str, Array]]:
    """Slices along an axis that hold the reference's of another place, which stands where it was, too."""
    if pair.reference.shape != pair.candidate.shape or pair.reference.ndim < 2:
        return
    for axis, name in enumerate(pair.axes):
        ours, theirs = (np.moveaxis(x, axis, 0) for x in (pair.reference, pair.candidate))
        if not 1 < len(ours) <= ROWS:
            continue
        like = cosines(ours, theirs)
        taken = like.argmax(1)
        moved = np.nonzero(taken != np.arange(len(taken)))[0].tolist()
        if len(np.unique(taken)) < len(taken) and (like.max(1)[moved] >= LIKE).all():
            told = ", ".join(f"{name} {at} holds {name} {taken[at]}" for at in moved[:SHOWN])
            more = f", and {len(moved) - SHOWN} more are copies" if len(moved) > SHOWN else ""
            yield told + more, pair.reference.take(taken, axis)


def _order(reference: Array, candidate: Array) -> Array | None:
    """Which row of the reference each row of the candidate is, if they are the same in another order."""
    count = len(reference)
    if not 1 < count <= ROWS:
        return None
    like = cosines(reference, candidate)
    order = like.argmax(1)
    taken = np.zeros(count, bool)
    for row in np.argsort(-like.max(1)):  # rows that are like several, zeros for one, take what is left
        if taken[order[row]]:
            order[row] = np.where(taken, -np.inf, like[row]).argmax()
        taken[order[row]] = True
    return order if (order != np.arange(count)).any() else None


def cosines(reference: Array, candidate: Array) -> Array:
    """The cosine of each slice of the candidate's [here] and each of the reference's [there]."""
    ours, theirs = (x.reshape(len(x), -1).astype(np.float32) for x in (reference, candidate))
    ours, theirs = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30) for x in (ours, theirs))
    return np.asarray(theirs @ ours.T)


def _several(axis: str, order: Array) -> str:
    moved = np.nonzero(order != np.arange(len(order)))[0]
    if len(moved) == 2:
        return f"{axis} {moved[0]} and {moved[1]} swapped"
    if len(order) <= LISTED:
        return f"{axis} permuted: 0 … {len(order) - 1} hold {', '.join(map(str, order))}"
    if (order == np.arange(len(order))[::-1]).all():
        return f"{axis} permuted: in reverse"
    count = "all" if len(moved) == len(order) else f"{len(moved):,} of"
    return f"{axis} permuted: {count} {len(order):,} stand elsewhere"
