"""Paired timing. **Round**: every variant once, in an order that rotates; **ratio**: a variant's time over the base's in one round.

A machine that is busy is busy for all variants of a round, so the median of ratios is steadier than a ratio of medians. The range is
given beside it: where ranges overlap 1, nothing is resolved. **Interval**: where the median of ever more rounds would lie, at a confidence of
95 % or more, whatever the ratios are distributed like: two of them in order of size, as a binomial says (Conover 1999, section 3.2).
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

CONFIDENCE = 0.95


@frozen
class Ratio:
    """One variant beside its base."""

    group: str
    name: str
    seconds: float
    """Median."""
    ratio: float
    """Median of the rounds' ratios to the base."""
    low: float
    high: float
    rounds: int
    interval: tuple[float, float] = (math.nan, math.nan)
    """Of the ratio; the range where there are too few rounds for more."""


def paired(
    group: str,
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Ratio]:
    """Time the variants side by side; the first is the base. Each runs once beforehand, uncounted.

    `time.process_time` as the clock counts what all threads of this process worked, and nothing of what else runs on the machine.
    """
    names = list(variants)
    for run in variants.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = clock()
            variants[name]()
            times[name].append(clock() - start)
    found = []
    for name in names:
        ratios = [mine / base for mine, base in zip(times[name], times[names[0]], strict=True)]
        found.append(
            Ratio(
                group,
                name,
                statistics.median(times[name]),
                statistics.median(ratios),
                min(ratios),
                max(ratios),
                rounds,
                interval(ratios),
            )
        )
    return found


def interval(numbers: Sequence[float]) -> tuple[float, float]:
    """Between which of the numbers the median of the distribution that they come from lies.

    >>> interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    (2.0, 8.0)
    """
    ordered, count = sorted(numbers), len(numbers)
    out, below = 0, 0.0
    while out < count // 2:
        below += math.comb(count, out) / 2**count
        if 1 - 2 * below < CONFIDENCE:
            break
        out += 1
    out = max(0, out - 1)
    return ordered[out], ordered[count - 1 - out]
