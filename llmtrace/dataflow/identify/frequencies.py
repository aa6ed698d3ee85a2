"""From measured frequencies to a record: a base, a base stretched throughout, or one divisor a pair.

**Plain**: the frequencies `theta ** (-2i / width)` of the paper (arXiv 2104.09864, §3.2.2). What is not plain is a `LongRope` of the divisors
that were measured: it says the same as any formula that gave them (YaRN's, Llama 3's), and claims none.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from llmtrace.dataflow.identify.decimals import settle
from llmtrace.dataflow.identify.phases import Layout, Turning
from llmtrace.schema.sites import Array
from llmtrace.spec import Linear, LongRope, Rotary

THETA = 10000.0
"""The base where frequencies do not tell one: the paper's."""
STILL = 1e15
"""The divisor of a pair that does not turn, though it was watched so long that one of a base of `SLOWEST` would have."""
SLOWEST = 1e8
SHARP = 0.01
"""How well, relative to itself, a frequency has to be known that no formula tells."""


def base(frequency: Array, error: Array, width: int, candidates: Iterable[float]) -> float | None:
    """The theta of plain frequencies; None if they are none."""
    exponent = np.arange(0, width, 2) / width
    if abs(frequency[0] - 1) > error[0]:
        return None
    told = (exponent > 0) & (frequency > 8 * error)
    if not told.any():
        return THETA if width == 2 else None
    weight = (exponent * frequency / error)[told] ** 2
    power = float((weight * -np.log(frequency[told]) / exponent[told]).sum() / weight.sum())
    theta = float(np.exp(power))
    found = settle(theta, 2 * theta * float(weight.sum() ** -0.5), candidates)
    if found <= 0 or (np.abs(frequency - found**-exponent) > error).any():
        return None
    return found


def plain(turned: Turning, width: int, layout: Layout, candidates: Iterable[float]) -> Rotary | None:
    """The record where every pair follows the formula, perhaps with all frequencies divided by one factor, and nothing is multiplied."""
    theta = base(turned.frequency, turned.error, width, candidates)
    if theta is not None:
        return Rotary(theta, width, layout)
    first, error = float(turned.frequency[0]), float(turned.error[0])
    if first <= 8 * error:
        return None
    factor = settle(1 / first, error / first**2, candidates)
    theta = base(
        turned.frequency * factor,
        turned.error * factor + 2 * turned.frequency * factor * error / first,
        width,
        candidates,
    )
    return None if theta is None else Rotary(theta, width, layout, Linear(factor) if factor != 1 else None)


def stretched(
    short: Turning, long: Turning, context: int, gain: float, width: int, layout: Layout, candidates: Iterable[float]
) -> Rotary:
    """The record with a divisor for each pair: `short` up to `context` positions, `long` beyond.

    theta is the one that the second pair tells, if the first turns by one radian: stretching begins with the slow pairs.
    """
    exponent = np.arange(0, width, 2) / width
    theta = THETA
    first, error = short.frequency, short.error
    if width > 2 and abs(first[0] - 1) <= error[0] and 8 * error[1] < first[1] < 1:
        power = float(-np.log(first[1]) / exponent[1])
        spread = float(error[1] / first[1] / exponent[1])
        if power < 40:
            theta = settle(float(np.exp(power)), float(np.exp(power)) * spread, candidates)
    unscaled = theta**-exponent
    return Rotary(theta, width, layout, LongRope(_divisors(unscaled, short), _divisors(unscaled, long), context, gain))


def vague(turned: Turning, width: int) -> bool:
    """Whether a pair turned too little to have its divisor measured."""
    slow = np.asarray(SLOWEST ** -(np.arange(0, width, 2) / width))
    still = turned.frequency <= turned.error
    return bool((np.where(still, 8 * turned.error > slow, turned.error > SHARP * turned.frequency)).any())


def _divisors(unscaled: Array, turned: Turning) -> tuple[float, ...]:
    found = []
    for plain, frequency, error in zip(unscaled, turned.frequency, turned.error, strict=True):
        if frequency <= error:
            found.append(STILL)
        else:
            divisor = float(plain / frequency)
            found.append(settle(divisor, divisor * float(error / frequency), exact=(1.0,)))
    return tuple(found)
