"""Activations, from their values on a grid. The names are those of the schema's table; **runner-up**: the one that fits second best.

GELU and its tanh form differ by 5e-4 at most, which a single float16 does not resolve. The two that fit best are therefore compared along
their difference: the **share** of it that is seen, over thousands of points, is 0 for the one and 1 for the other. Where even that is in
doubt there is no answer, but the two names.
"""

from __future__ import annotations

import numpy as np
from attrs import evolve, frozen

from llmtrace.dataflow.identify.measured import FLOAT32, Piece, Unfit, double, single
from llmtrace.schema.functions import ACTIVATIONS, xielu
from llmtrace.schema.sites import Array

APART = 4.0
"""How many times worse the runner-up must fit to need no closer look."""


@frozen
class FoundActivation:
    """An activation that fits, and how well the next best does."""

    act: str
    """A name of `ACTIVATIONS`."""
    error: float
    """The root mean square deviation, in units of what rounding explains: at most 1."""
    runner_up: str
    """The activation that fits second best."""
    margin: float
    """How many times worse it fits."""
    gain: float = 1.0
    """What it is multiplied by besides: a power of two."""
    numbers: tuple[float, float, float, float] | None = None
    """Those of `xielu` (`alpha_p`, `alpha_n`, `beta`, `eps`), as measured; None of any other."""


def grid() -> Array:
    """768 numbers from -24 to 24 and 4096 from -4 to 4; each is exact in float16. In an order that mixes them."""
    wide, near = np.arange(-384, 384) / 16, np.arange(-2048, 2048) / 512
    return np.random.default_rng(0).permutation(np.concatenate([wide, near]))


def find_activation(piece: Piece, width: int, *, gains: bool = False, unit: float = FLOAT32) -> FoundActivation | Unfit:
    """The activation that a piece applies to every channel of `[token d_mlp]`; what it gives may not depend on the channel.

    With `gains`, a power of two may multiply it.
    """
    points = grid()
    rows = np.resize(points, (-(-len(points) // width) + 1, width))
    found = double(piece(single(rows)))
    if found.shape != rows.shape or not np.isfinite(found).all():
        return Unfit("its output is not one finite number for each number")
    gain = _gain(rows, found) if gains else 1.0
    fit = nearest(found / gain, {name: act(rows) for name, act in ACTIVATIONS.items()}, unit * (1 + np.abs(rows)))
    if isinstance(fit, FoundActivation):
        return evolve(fit, gain=gain)
    return (_xielu(rows, found, unit) if gains else None) or fit


def _xielu(rows: Array, found: Array, unit: float) -> FoundActivation | None:
    """xIELU, if it is that: two curves, one on each side, with the same slope in nought, and what stands there tells where one of them ends."""
    above, below = rows > 0, rows < -1
    first = np.linalg.lstsq(np.stack([rows[above] ** 2, rows[above]], -1), found[above], rcond=None)[0]
    curve = np.expm1(rows[below]) - rows[below]
    second = np.linalg.lstsq(np.stack([curve, rows[below]], -1), found[below], rcond=None)[0]
    alpha_p, alpha_n, beta = float(first[0]), float(second[0]), float(first[1])
    end = float(found[rows == 0].mean()) / alpha_n if alpha_n else 0.0
    if not np.isfinite([alpha_p, alpha_n, beta]).all() or not -0.6 < end < 0:
        return None
    numbers = alpha_p, alpha_n, beta, float(np.log1p(end))
    expected = xielu(rows, *(np.array([each]) for each in numbers))
    off = np.abs(found - expected) / (4 * unit * (1 + np.abs(rows) + np.abs(expected)))
    rms = float(np.sqrt((off**2).mean()))
    return None if rms > 1 or off.max() > 8 else FoundActivation("xielu", rms, "", np.inf, numbers=numbers)


def _gain(rows: Array, found: Array) -> float:
    """The power of two by which all large numbers are multiplied: an optimiser may move GELU's half past the next matrix. 1 if there is none."""
    quotient = found[rows > 16] / rows[rows > 16]
    gain = float(2.0 ** np.rint(np.log2(max(float(np.median(quotient)), 1e-9))))
    return gain if gain <= 4 and np.abs(quotient / gain - 1).max() < 0.01 else 1.0


def nearest(found: Array, expected: dict[str, Array], noise: Array) -> FoundActivation | Unfit:
    """The one of several expectations that fits: the root mean square deviation within 4 `noise`, no deviation over 32 of it."""
    off = {name: np.abs(found - each) / (noise + noise.min() * np.abs(each)) for name, each in expected.items()}
    rms = {name: float(np.sqrt((each**2).mean())) / 4 for name, each in off.items()}
    best, second = sorted(rms, key=lambda name: rms[name])[:2]
    if rms[best] > 1 or off[best].max() > 32:
        return Unfit(
            f"the nearest, {best}, is off by {max(rms[best], off[best].max() / 32):.3g} times what rounding explains"
        )
    margin = rms[second] / max(rms[best], 0.02)  # what fits to the last bit is not infinitely better
    if margin < APART and not _decided(found - expected[best], expected[second] - expected[best], noise):
        return Unfit(f"{best} and {second} both fit at the resolution of its numbers")
    return FoundActivation(best, rms[best], second, margin)


def _decided(off: Array, difference: Array, noise: Array) -> bool:
    """Whether what is `off` holds clearly less than half of a `difference`: its share under 0.3, and known to a tenth."""
    weight = (difference / noise) ** 2
    share = float((off * difference / noise**2).sum() / weight.sum())
    scatter = float(np.sqrt(((off / noise) ** 2).mean() / weight.sum()))
    return bool(abs(share) < 0.3 and scatter < 0.1)
