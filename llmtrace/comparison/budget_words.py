"""Where a candidate's cost is, in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmtrace.comparison.budget import Distance, Swap

MOST_OF_IT = 0.8
"""The share that is most of the cost."""
NEARLY = 1e-9
"""By which sums may miss it."""
NAMED, FEW = 3, 10
"""So many weights are named; so many are few."""


def headline(swaps: Sequence[Swap], total: float, together: Distance, candidate: Distance | None) -> str:
    """Which weights cost most, what all come to, and what the candidate does."""
    ends = "" if candidate is None else f"; the candidate itself is at {nats(candidate.kl)}"
    if not swaps:
        return f"no weight differs from the reference's{ends}"
    if not total:
        return f"no weight that differs moves any prediction{ends}"
    if not math.isfinite(together.kl):
        return f"{_most(swaps)}; with all at once the reference computes numbers that are not finite{ends}"
    return f"{_most(swaps)}; all at once come to {nats(together.kl)}, {_beside(together.kl, total)} the sum of {nats(total)}{ends}"


def nats(kl: float) -> str:
    """A KL for people.

    >>> nats(0.01234), nats(0.0)
    ('0.0123 nats', '0 nats')
    """
    return f"{kl:.3g} nats"


def _most(swaps: Sequence[Swap]) -> str:
    """«These three tensors cost you 80 % of the KL», or that no few do."""
    count = next((place for place, swap in enumerate(swaps, 1) if swap.cumulative >= MOST_OF_IT - NEARLY), len(swaps))
    names = [" with ".join(swap.names) for swap in swaps[: min(count, NAMED)]]
    if count > FEW:
        share = f"{swaps[FEW - 1].cumulative:.0%} of the KL ({', '.join(names)} …)"
        most = f"{count} cost {swaps[count - 1].cumulative:.0%}"
        return f"no few weights cost most: the dearest {FEW} of {len(swaps)} cost {share}, and {most}"
    more = f" and {count - NAMED} more" if count > NAMED else ""
    which = "the only weight that differs" if len(swaps) == 1 else f"{count} of {len(swaps)} weights that differ"
    verb = "costs" if count == 1 else "cost"
    return f"{which} {verb} {swaps[count - 1].cumulative:.0%} of the KL: {', '.join(names)}{more}"


def _beside(together: float, total: float) -> str:
    share = together / total - 1
    if abs(share) < 0.005:
        return "as much as"
    return f"{abs(share):.0%} {'more' if share > 0 else 'less'} than"
