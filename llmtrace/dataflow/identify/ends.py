"""Numbers at the ends of the stream and between: a factor, a factor with a bias, the first row of a table of positions."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from attrs import frozen

from llmtrace.dataflow.identify.capped import find_cap, powers
from llmtrace.dataflow.identify.decimals import settle
from llmtrace.dataflow.identify.measured import FLOAT32, Piece, Unfit, double, floor, single, worst
from llmtrace.schema.sites import Array


@frozen(eq=False)
class Affine:
    """`y = factor * (x + bias)`."""

    factor: float | Array
    """One number for all channels, or one a channel, [channel]."""
    bias: Array | None
    """One number a channel, [channel]; None where all measured 0."""


def find_factor(
    piece: Piece, width: int, *, candidates: Iterable[float] = (), exact: Iterable[float] = (), unit: float = FLOAT32
) -> float | Unfit:
    """The number that a piece multiplies every number of `[token width]` by."""
    found = find_cap(piece, width, candidates=candidates, exact=exact, unit=unit)
    if isinstance(found, Unfit):
        return found
    return found.scale if found.softcap is None else Unfit(f"it caps at {found.softcap:.6g}")


def find_affine(
    piece: Piece, width: int, *, candidates: Iterable[float] = (), exact: Iterable[float] = (), unit: float = FLOAT32
) -> Affine | Unfit:
    """The factors and biases that a piece applies to the rows of `[token width]`: a row of zeros becomes the bias times the factor."""
    one = powers(1)  # each channel gets all of them
    rows = np.concatenate([np.zeros((1, width)), np.stack([np.roll(one[:, 0], at) for at in range(width)], -1)])
    found = double(piece(single(rows)))
    if found.shape != rows.shape or not np.isfinite(found).all():
        return Unfit("its output is not one finite number for each number")
    start, x, y = found[0], rows[1:], found[1:] - found[0]
    noise = unit * (np.abs(found[1:]) + np.abs(start)) + floor(unit)
    weight = (x / noise) ** 2
    each = (weight * (y / x)).sum(0) / weight.sum(0)
    error = np.maximum(6 * weight.sum(0) ** -0.5, unit * np.abs(each))
    factor: float | Array = each
    shared = float((weight * (y / x)).sum() / weight.sum())
    if (np.abs(each - shared) <= error + unit * abs(shared)).all():
        factor = (
            settle(shared, float(error.max()), candidates, trust=4 * unit * abs(shared), exact=exact) if shared else 0.0
        )
    off = worst(y, factor * x, 8 * noise + 4 * unit * np.abs(factor * x))
    if off > 1:
        return Unfit(f"as a factor times its input and a bias: it is off by {off:.3g} times what rounding explains")
    if not start.any():
        return Affine(factor, None)
    if not np.all(factor):
        return Unfit("what is multiplied by nought has a bias")
    return Affine(factor, start / factor)


def find_offset(table: Array, measured: Array, *, unit: float = FLOAT32) -> int | Unfit:
    """The row of a `table` [position d_model] that position 0 got, where `measured` [token d_model] are rows that follow each other."""
    table, measured = double(table), double(measured)
    count, rows = len(measured), len(table)
    if table.shape[1:] != measured.shape[1:] or not 0 < count <= rows:
        return Unfit(f"{measured.shape} are no rows of a table of {table.shape}")
    near = 2 * unit * np.abs(measured) + floor(unit)
    starts = [at for at in range(rows - count + 1) if worst(table[at], measured[0], near[0]) <= 1]
    fit = [at for at in starts if worst(table[at : at + count], measured, near) <= 1]
    if not fit:
        return Unfit("what positions add are no rows of the table that follow each other")
    return fit[0] if len(fit) == 1 else Unfit(f"rows {fit[0]} and {fit[1]} of the table both begin what positions add")
