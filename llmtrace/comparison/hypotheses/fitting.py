"""A field's value that explains a site best: where no usual value does, one number may."""

from __future__ import annotations

import math
from collections.abc import Callable

SHARE = (math.sqrt(5) - 1) / 2


def fitted(error: Callable[[float], float], start: float, decades: int = 6, pace: float = 0.25) -> float:
    """The positive value of least error: a grid of `decades` around `start`, then a golden section in the logarithm.

    >>> round(fitted(lambda x: abs(x - 7.0), 1.0), 6)
    7.0
    """
    reach = round(decades / 2 * math.log(10) / pace)
    grid = [math.log(start) + pace * at for at in range(-reach, reach + 1)]
    best = min(grid, key=lambda log: error(math.exp(log)))
    low, high = best - pace, best + pace
    for _ in range(40):
        a, b = high - SHARE * (high - low), low + SHARE * (high - low)
        if error(math.exp(a)) < error(math.exp(b)):
            high = b
        else:
            low = a
    return math.exp((low + high) / 2)
