"""Paired timing. **Round**: every variant once, in an order that rotates; **ratio**: a variant's time over the base's in one round.

A machine that is busy is busy for all variants of a round, so the median of ratios is steadier than a ratio of medians. The range is
given beside it: where ranges overlap 1, nothing is resolved.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

from attrs import frozen


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


def paired(group: str, variants: Mapping[str, Callable[[], object]], rounds: int) -> list[Ratio]:
    """Time the variants side by side; the first is the base. Each runs once beforehand, uncounted."""
    names = list(variants)
    for run in variants.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            variants[name]()
            times[name].append(time.perf_counter() - start)
    found = []
    for name in names:
        ratios = [mine / base for mine, base in zip(times[name], times[names[0]], strict=True)]
        found.append(
            Ratio(
                group, name, statistics.median(times[name]), statistics.median(ratios), min(ratios), max(ratios), rounds
            )
        )
    return found
