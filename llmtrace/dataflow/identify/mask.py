"""What is added to scores whatever q and k are: the mask and ALiBi, from queries and keys of zeros.

**Origin**: from where a runtime counts ALiBi's distance. The schema counts from the query, `slope · (key - query)`; a runtime that counts from
the `first` or the `last` token adds a constant to each row, which no softmax sees, and which has to be taken off the scores.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from attrs import frozen

from llmtrace.dataflow.identify.measured import Unfit, double
from llmtrace.schema.attention import visible
from llmtrace.schema.sites import Array

HIDDEN = -5e3
"""A score below it is a mask's: it stays nought after a softmax, and no ALiBi of a few thousand tokens reaches it."""
Origin: TypeAlias = Literal["query", "first", "last", "other"]


@frozen(eq=False)
class FoundMask:
    """Which keys a query sees, and what is added to their scores."""

    window: int | None
    """As in `Attention`; None where none shorter than the probe shows."""
    slopes: tuple[float, ...]
    """As in `Attention`; empty where nothing grows with the distance."""
    origin: Origin
    """From where the runtime counts; `other` adds a constant to rows that is none of these."""
    constant: Array
    """What the runtime adds to each row beyond `slope · (key - query)`, [head query]."""


def find_mask(bias: Array, unit: float) -> FoundMask | Unfit:
    """What the scores `[head query key]` of zeros show."""
    length, keys = bias.shape[1:]
    if length != keys:
        return Unfit(f"{length} queries meet {keys} keys")
    if any(np.isnan(one).any() for one in bias):
        return Unfit("scores of zeros are not numbers")
    seen = bias[0] > HIDDEN
    if any(((one > HIDDEN) != seen).any() for one in bias[1:]):
        return Unfit("its heads see different keys")
    window = _window(seen)
    if isinstance(window, Unfit):
        return window
    rows = [_row(double(one), seen, unit) for one in bias]
    for head, row in enumerate(rows):
        if isinstance(row, Unfit):
            return Unfit(f"in head {head}, {row.why}")
    slopes = np.array([row[0] for row in rows if not isinstance(row, Unfit)])
    constant = np.array([row[1] for row in rows if not isinstance(row, Unfit)])
    origin = _origin(slopes, constant, np.array([np.abs(one[seen]).max() for one in bias]), unit)
    exact = _exact(bias, seen, origin, slopes)
    return FoundMask(window, tuple(exact.tolist()) if exact.any() else (), origin, constant)


def _window(seen: Array) -> int | Unfit | None:
    length = len(seen)
    later = np.argwhere(np.triu(seen, 1))
    if len(later):
        return Unfit(f"query {later[0][0]} sees key {later[0][1]}, which comes after it: attention is not causal")
    count = int(seen[-1].sum())
    window = None if count == length else count
    if count == 0 or (seen != visible(np.arange(length), window)).any():
        row = 0 if count == 0 else int(np.flatnonzero((seen != visible(np.arange(length), window)).any(1))[0])
        return Unfit(
            f"the {int(seen[row].sum())} keys that query {row} sees are not itself and those before it, in a window of {window}"
        )
    return window


def _row(bias: Array, seen: Array, unit: float) -> tuple[float, Array] | Unfit:
    """Slope and constants [query] of one head: a straight line along the keys of each row."""
    length = len(bias)
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    last = seen[-1]
    d = distance[-1][last] - distance[-1][last].mean()
    slope = float((d * bias[-1][last]).sum() / (d**2).sum()) if last.sum() > 1 else 0.0
    off = np.where(seen, bias - slope * distance, 0)
    constant = off.sum(-1) / seen.sum(-1)
    if (np.abs(off - np.where(seen, constant[:, None], 0)) > 8 * unit * np.abs(bias[seen]).max()).any():
        return Unfit("what is added to scores is no straight line along the keys")
    return slope, constant


def _origin(slopes: Array, constant: Array, size: Array, unit: float) -> Origin:
    at = np.arange(constant.shape[1])
    kinds: dict[Origin, Array] = {
        "query": np.zeros(constant.shape),
        "first": slopes[:, None] * at,
        "last": slopes[:, None] * (at - at[-1]),
    }
    for origin, expected in kinds.items():
        if (np.abs(constant - expected) <= 8 * unit * size[:, None]).all():
            return origin
    return "other"


def _exact(bias: Array, seen: Array, origin: Origin, slopes: Array) -> Array:
    """The slopes, from a pair of keys whose scores differ by exactly one slope where the runtime rounds nothing away."""
    row = 1 if origin in ("query", "first") else len(seen) - 1
    if len(seen) < 2 or not seen[row, row - 1]:
        return slopes
    exact = double(bias[:, row, row]) - double(bias[:, row, row - 1])
    return exact if origin != "other" else slopes
