"""Gated activations, from a grid of pairs: which half meets the non-linearity, and what bounds both.

**Linear half**: the one along which the output is `slope · (clip(b, ± limit) + offset)`. Along it, at one value of the other half, the grid
shows limit and offset; the rest of the grid decides the activation.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from attrs import frozen

from llmtrace.dataflow.identify.activation import nearest
from llmtrace.dataflow.identify.decimals import settle
from llmtrace.dataflow.identify.measured import FLOAT32, Joint, Unfit, double, single
from llmtrace.schema.functions import ACTIVATIONS
from llmtrace.schema.mlp import gated
from llmtrace.schema.sites import Array
from llmtrace.spec import Clamp, GatedMlp

BOUND = 96.0
"""Half of the linear half's range: a limit beyond it is not seen."""


@frozen
class FoundGate:
    """`act(pre) · pre_linear`, with its clamp."""

    act: str
    """A name of `ACTIVATIONS`."""
    clamp: Clamp | None
    """The bounds on both halves, where there are any under 96 (`BOUND`), and what is added to the linear half."""
    swapped: bool
    """The piece's first input is the linear half, its second the gated one."""
    error: float
    """The root mean square deviation, in units of what rounding explains: at most 1."""


def find_gated(
    piece: Joint, width: int, *, candidates: Iterable[float] = (), unit: float = FLOAT32
) -> FoundGate | Unfit:
    """What a piece makes of two halves, both `[token d_mlp]`. `candidates`: numbers that may be its limit or offset."""
    rng = np.random.default_rng(0)
    ends = np.concatenate([np.arange(-BOUND, BOUND + 1, 16.0), [-20.0, -11.0, 11.0, 20.0]])
    axis = np.sort(np.concatenate([np.arange(-128, 129) / 16, ends]))
    first, second = (half.ravel() for half in np.meshgrid(axis, axis, indexing="ij"))
    order = rng.permutation(first.size)
    count = -(-first.size // width)
    back = np.empty(first.size, np.intp)
    back[order] = np.arange(first.size)
    rows = [np.resize(half[order], (count, width)) for half in (first, second)]
    found = double(piece(single(rows[0]), single(rows[1])))
    if found.shape != rows[0].shape or not np.isfinite(found).all():
        return Unfit("its output is not one finite number for each pair")
    table = found.ravel()[: first.size][back].reshape(len(axis), len(axis))
    failed = []
    for swapped in (False, True):
        fit = _fit(table.T if swapped else table, axis, list(candidates), unit)
        if not isinstance(fit, Unfit):
            return FoundGate(fit[0], fit[1], swapped, fit[2])
        failed.append(f"with the {'first' if swapped else 'second'} half as the linear one: {fit.why}")
    return Unfit("; ".join(failed))


def _fit(table: Array, axis: Array, candidates: list[float], unit: float) -> tuple[str, Clamp | None, float] | Unfit:
    """`table` [pre pre_linear]: the activation, the clamp and the error."""
    clamp = _linear(table[np.flatnonzero(axis == 2.0)[0]], axis, candidates, unit)
    if isinstance(clamp, Unfit):
        return clamp
    pre, linear = np.broadcast_arrays(axis[:, None], axis[None, :])
    expected = {act: gated(GatedMlp(0, act, clamp=clamp), pre, linear) for act in ACTIVATIONS}
    fit = nearest(table, expected, unit * (1 + np.abs(pre)) * (1 + np.abs(linear)))
    return fit if isinstance(fit, Unfit) else (fit.act, clamp, fit.error)


def _linear(values: Array, axis: Array, candidates: list[float], unit: float) -> Clamp | Unfit | None:
    """The clamp that a row `slope · (clip(b, ± limit) + offset)` shows, b along the axis; None for a straight line through nought."""
    at = {float(b): float(value) for b, value in zip(axis, values, strict=True)}
    slope = (at[0.5] - at[-0.5]) / 1.0
    if abs(slope) < 1e-2:
        return Unfit("nothing changes along it")
    shape = values / slope
    noise = 8 * unit * (1 + np.abs(shape))
    middle = int(np.flatnonzero(axis == 0)[0])
    offset = float(shape[middle])
    offset = 0.0 if abs(offset) < noise[middle] else settle(offset, float(noise[middle]), candidates)
    limit = float(shape[-1] - offset)
    bounded = limit < BOUND * (1 - 64 * unit)
    limit = settle(limit, float(noise[-1]), candidates) if bounded and limit > 0 else BOUND
    if limit <= 0 or (np.abs(shape - np.clip(axis, -limit, limit) - offset) > 4 * noise).any():
        return Unfit("the output is no straight line along it, bounded on both sides")
    if not bounded:
        return Unfit(f"{offset:.6g} is added to it and nothing bounds it, which no clamp says") if offset else None
    return Clamp(limit, offset)
