"""How fast pairs of channels turn. **Phase**: the angle between a pair before and after, for each position; it is known up to whole turns.

From position 1 on, each doubling of the position halves the error of the frequency, and the one before says how many whole turns went by;
then all positions are fitted together.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from attrs import frozen

from llmtrace.dataflow.identify.measured import Unfit
from llmtrace.schema.sites import Array

Layout: TypeAlias = Literal["half", "interleaved"]


@frozen(eq=False)
class Turning:
    """The frequencies of the leading `width` channels, as measured."""

    frequency: Array
    """Radians a position, [width / 2]."""
    error: Array
    """What each may be off by, [width / 2]."""
    gain: float
    """What the rotated channels are multiplied by."""


def pairs(width: int, layout: Layout) -> tuple[slice, slice]:
    """The first and the second channels of the pairs."""
    half = width // 2
    return (slice(0, half), slice(half, width)) if layout == "half" else (slice(0, width, 2), slice(1, width, 2))


def joined(x: Array, width: int, layout: Layout) -> Array:
    """Pairs as complex numbers, [token head width / 2]."""
    first, second = pairs(width, layout)
    return np.asarray(x[..., first] + 1j * x[..., second])


def mirrored(x: Array, width: int, layout: Layout) -> Array:
    """With the second channels of pairs negated: what turned backwards turns forwards."""
    found = x.copy()
    found[..., pairs(width, layout)[1]] *= -1
    return found


def keeps_lengths(q: Array, rot: Array, width: int, layout: Layout, unit: float) -> bool:
    """Whether every pair has the same length after as before, but for one factor."""
    before, after = (np.abs(joined(x, width, layout)) for x in (q, rot))
    gain = np.sqrt((after**2).sum() / (before**2).sum())
    return bool((np.abs(after - gain * before) <= 24 * unit * gain * (before + unit)).all())


def turning(q: Array, rot: Array, width: int, layout: Layout, unit: float) -> Turning | Unfit:
    """The frequencies and the gain, from queries at positions 0 to n - 1 before and after they are turned."""
    before, after = (joined(x, width, layout) for x in (q, rot))
    gain = float(np.sqrt((np.abs(after) ** 2).sum() / (np.abs(before) ** 2).sum()))
    phase = np.angle((after * before.conj()).sum(1))
    if (np.abs(phase[0]) > 32 * unit).any():
        return Unfit("position 0 is turned")
    length = len(phase)
    frequency = phase[1].copy()
    at = 2
    while at < length:
        frequency += _whole(phase[at] - at * frequency) / at
        at *= 2
    position = np.arange(length)[:, None]
    noise = unit * (4 + position * np.abs(frequency))
    weight = (position / noise) ** 2
    rest = _whole(phase - position * frequency)
    frequency += (weight[1:] * rest[1:] / position[1:]).sum(0) / weight.sum(0)
    error = 4 * weight.sum(0) ** -0.5 + 4 * unit * np.abs(frequency)
    if (frequency < -4 * error).any():
        return Unfit("some pairs turn from the second channel to the first")
    return Turning(frequency, error, gain)


def _whole(angle: Array) -> Array:
    """Without whole turns: between - π and π."""
    return np.asarray(np.remainder(angle + np.pi, 2 * np.pi) - np.pi)
