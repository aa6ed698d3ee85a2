"""How a token stands among all others at one place. **Rank**: its place in the order of likelihood, best first, equally likely tokens by
id; **ranks**: the first and the last of those that equally likely tokens share, which order by id alone tells apart.
"""

from __future__ import annotations

from attrs import frozen

from llmtrace.schema.functions import softmax
from llmtrace.schema.sites import Array


@frozen
class Standing:
    """A token's probability and rank."""

    probability: float
    rank: int
    """1 is the most likely token; of equally likely ones, the lower id comes first."""
    ranks: tuple[int, int]
    """1 + the number of likelier tokens, and the number of those that are at least as likely: both are `rank` unless there is a tie."""


def standing(logits: Array, id: int) -> Standing:
    """Of one token by its id, from the logits of all, [vocab]."""
    own = logits[id]
    before, tied = int((logits > own).sum()), logits == own
    rank = before + 1 + int(tied[:id].sum())
    return Standing(float(softmax(logits)[id]), rank, (before + 1, before + int(tied.sum())))
