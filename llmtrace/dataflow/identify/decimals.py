"""From a measured number to the one that was meant: configurations hold short decimals, graphs their nearest float32.

**Preferred**: numbers that are likely beforehand, such as constants that stand in the graph; one that lies within the error of the
measurement is taken before any shorter decimal.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def decimal(value: float) -> float:
    """The shortest decimal whose float32 is `value`; `value` itself where it is no float32.

    >>> decimal(float(np.float32(1e-5))), decimal(1 / 3)
    (1e-05, 0.3333333333333333)
    """
    rounded = np.float32(value)
    return float(str(rounded)) if float(rounded) == value else value


def shortest(low: float, high: float) -> float:
    """The decimal of fewest digits between two positive or two negative numbers, both included; the nearest to their middle.

    >>> shortest(9.99e-6, 1.01e-5), shortest(0.08838830, 0.08838838)
    (1e-05, 0.0883883)
    """
    middle = (low + high) / 2
    for digits in range(16):
        rounded = float(f"{middle:.{digits}e}")
        if low <= rounded <= high:
            return rounded
    return middle


def settle(
    measured: float, error: float, preferred: Iterable[float] = (), *, trust: float = 0.0, exact: Iterable[float] = ()
) -> float:
    """The number meant by one that was measured within `error`.

    First one of `exact`, taken as it is, then one of `preferred`, taken as its shortest decimal, if it lies within `error` (or `trust`,
    if that is more); of several the nearest. Else the shortest decimal within `error`.
    """
    for likely in ([float(one) for one in exact], [decimal(float(one)) for one in preferred]):
        near = [one for one in likely if abs(one - measured) <= max(error, trust)]
        if near:
            return min(near, key=lambda one: abs(one - measured))
    return shortest(measured - error, measured + error)
