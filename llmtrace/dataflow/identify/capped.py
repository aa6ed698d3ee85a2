"""Numbers that multiply and cap: `y = softcap(scale · x)`, from values of x of many sizes.

Small ones show the scale, large ones the cap. A cap that bends nothing among them is not seen.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from attrs import frozen

from llmtrace.dataflow.identify.decimals import settle
from llmtrace.dataflow.identify.measured import FLOAT32, Piece, Unfit, double, floor, single, worst
from llmtrace.schema.functions import softcap
from llmtrace.schema.sites import Array


@frozen
class Capped:
    """`y = softcap(scale · x)`."""

    scale: float
    """What x is multiplied by."""
    softcap: float | None
    """`cap * tanh(scale · x / cap)`; None where nothing bends."""


def find_cap(
    piece: Piece, width: int, *, candidates: Iterable[float] = (), exact: Iterable[float] = (), unit: float = FLOAT32
) -> Capped | Unfit:
    """The scale and cap that a piece applies to every number of `[token width]`.

    `candidates` may be either; `exact` are scales that are taken as they are, such as `d_model**-0.5`.
    """
    rows = powers(width)
    found = double(piece(single(rows)))
    if found.shape != rows.shape or not np.isfinite(found).all():
        return Unfit("its output is not one finite number for each number")
    return scale_and_cap(rows.ravel(), found.ravel(), np.zeros(rows.size), candidates, exact, unit)


def powers(width: int) -> Array:
    """± 1, 1.25, 1.5 and 1.75 times powers of two from 2⁻¹⁰ to 2¹⁰, as rows of a width; each is exact in float16."""
    one = (np.array([1, 1.25, 1.5, 1.75])[:, None] * 2.0 ** np.arange(-10, 11)).ravel()
    both = np.random.default_rng(0).permutation(np.concatenate([one, -one]))
    return np.resize(both, (-(-len(both) // width) + 1, width))


def scale_and_cap(
    x: Array, y: Array, extra: Array, candidates: Iterable[float], exact: Iterable[float], unit: float
) -> Capped | Unfit:
    """What makes y of x, all of them [number]. `extra`: the error that y has besides its own rounding."""
    candidates, exact = list(candidates), list(exact)
    noise = unit * np.abs(y) + extra + floor(unit)
    if not (y[x != 0] != 0).any():
        return Unfit("its output is nought")
    quotient, error = y / x, noise / np.abs(x)

    def factor(measured: float, error: float) -> float:
        trust = max(error, 4 * unit * abs(measured))
        return settle(measured, max(error, unit * abs(measured)), candidates, trust=trust, exact=exact)

    sharp = error <= 2 * unit * np.abs(quotient)
    if sharp.any():
        plain = factor(float(np.median(quotient[sharp])), 0.0)
        if worst(y, plain * x, 8 * noise + 4 * unit * np.abs(plain * x)) <= 1:
            return Capped(plain, None)
    noise = noise + floor(unit) * np.abs(y).max()  # of what enters the tanh, times the cap
    fit = _bent(x, y, noise, noise / np.abs(x))
    if fit is None:
        return Unfit("it is neither a factor nor a capped one")
    scale, cap, scale_error, cap_error = fit
    found = Capped(
        factor(scale, max(6 * scale_error, 4 * unit * abs(scale))),
        settle(cap, max(6 * cap_error, 2 * unit * cap), candidates),
    )
    expected = softcap(found.scale * x, found.softcap)
    off = worst(y, expected, 16 * noise + 16 * unit * np.abs(expected))
    return (
        found
        if off <= 1
        else Unfit(f"with scale {scale:.6g} and cap {cap:.6g}, it is off by {off:.3g} times what rounding explains")
    )


def _bent(x: Array, y: Array, noise: Array, error: Array) -> tuple[float, float, float, float] | None:
    """Least squares of `cap · tanh(scale · x / cap)`: scale, cap, and the error of each."""
    most = float(np.abs(y).max())
    straight = np.abs(y) < 0.05 * most
    if not straight.any():
        return None
    weight = np.where(straight, error, np.inf) ** -2.0
    scale = float((y / x * weight).sum() / weight.sum())
    starts = most * 2 ** np.arange(0, 12, 0.25)
    cap = float(min(starts, key=lambda cap: float((((y - cap * np.tanh(scale * x / cap)) / noise) ** 2).sum())))
    inverse = np.eye(2)
    for _ in range(12):
        u = np.clip(scale * x / cap, -20, 20)
        bend = 1 - np.tanh(u) ** 2
        slopes = np.stack([x * bend, np.tanh(u) - u * bend]) / noise
        normal = slopes @ slopes.T
        size = np.sqrt(np.diag(normal))
        if not np.isfinite(size).all() or not (size > 0).all():
            return None
        shaped = normal / np.outer(size, size)
        if np.linalg.cond(shaped) > 1e12:
            return None
        inverse = np.linalg.inv(shaped) / np.outer(size, size)
        step = inverse @ (slopes @ ((y - cap * np.tanh(u)) / noise))
        scale, cap = scale + float(step[0]), max(cap + float(step[1]), cap / 2)
    bend = np.abs(scale * x - cap * np.tanh(scale * x / cap)) / noise
    if bend.max() < 32:  # a line, but for something that is no cap
        return None
    return scale, cap, float(inverse[0, 0] ** 0.5), float(inverse[1, 1] ** 0.5)
