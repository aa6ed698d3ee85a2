"""The eps of a norm, from rows and the same rows scaled down.

A base row of mean square m at scale s, over itself at scale 1, is `r(s) = s √(m + eps) / √(s² m + eps)`: near 1 while `s² m` is over eps,
near 0 when it is far under. Every scale measures eps, and each counts as much as rounding lets it.
"""

from __future__ import annotations

import numpy as np

from llmtrace.dataflow.identify.decimals import settle
from llmtrace.dataflow.identify.measured import Unfit
from llmtrace.schema.sites import Array


def eps_of(
    base: Array, found: Array, b: Array, scales: Array, axes: tuple[int, ...], candidates: list[float], unit: float
) -> float | Unfit:
    """eps, 0 where none shows. `base` [base group channel], centred where the norm is; `found` [scale base group channel]; `axes` of the mean."""
    mean_square = (base**2).mean(axes)[None]
    moved = found - b
    first = moved[:1]
    whole = (first**2).sum(axes)
    if not (whole > 0).all() or not (mean_square > 0).all():
        return Unfit("rows of numbers become the bias alone")
    r = (moved * first).sum(axes) / whole
    size = base[0].size / mean_square[0][0].size
    noise = unit * (2 * np.abs(r) + np.sqrt((found**2).sum(axes) / whole / size))
    s2 = (scales**2).reshape(-1, *[1] * (r.ndim - 1))
    tell = (r**2 > 0.2) & (r**2 < 0.8)
    with np.errstate(all="ignore"):
        alone = s2 * mean_square * (1 - r**2) / (r**2 - s2)
    eps = float(np.median(alone[tell])) if tell.any() else 0.0
    error = np.inf
    for _ in range(4):  # Gauss-Newton, from a start that is near
        if not np.isfinite(eps):
            break
        below = s2 * mean_square + eps
        fitted = np.sqrt(s2 * (mean_square + eps) / below)
        slope = fitted / 2 * (1 / (mean_square + eps) - 1 / below)
        weight = (slope / noise) ** 2
        used = weight > 0
        if not used.any():
            break
        error = float(weight[used].sum() ** -0.5)
        step = float(((r - fitted)[used] * slope[used] / noise[used] ** 2).sum()) * error**2
        eps = max(eps + step, 0.0)
    if not np.isfinite(error) or not np.isfinite(eps):
        return Unfit("its outputs do not shrink with its inputs as those of a norm do")
    return 0.0 if eps < 6 * error else settle(eps, max(6 * error, 4 * unit * eps), candidates)
