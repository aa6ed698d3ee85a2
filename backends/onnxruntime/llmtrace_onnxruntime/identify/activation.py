"""Activations, from their values on a grid. The names are those of the schema's table; **runner-up**: the one that fits second best.

GELU and its tanh form differ by 5e-4 at most, which a single float16 does not resolve. The two that fit best are therefore compared along
their difference: the **share** of it that is seen, over thousands of points, is 0 for the one and 1 for the other. Where even that is in
doubt there is no answer, but the two names.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from llmtrace.schema.functions import ACTIVATIONS
from llmtrace.schema.sites import Array
from llmtrace_onnxruntime.identify.measured import FLOAT32, Piece, Unfit, double, single

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


def grid() -> Array:
    """768 numbers from -24 to 24 and 4096 from -4 to 4; each is exact in float16. In an order that mixes them."""
    wide, near = np.arange(-384, 384) / 16, np.arange(-2048, 2048) / 512
    return np.random.default_rng(0).permutation(np.concatenate([wide, near]))


def find_activation(piece: Piece, width: int, *, unit: float = FLOAT32) -> FoundActivation | Unfit:
    """The activation that a piece applies to every channel of `[token d_mlp]`; what it gives may not depend on the channel."""
    points = grid()
    rows = np.resize(points, (-(-len(points) // width) + 1, width))
    found = double(piece(single(rows)))
    if found.shape != rows.shape or not np.isfinite(found).all():
        return Unfit("its output is not one finite number for each number")
    return nearest(found, {name: act(rows) for name, act in ACTIVATIONS.items()}, unit * (1 + np.abs(rows)))


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
