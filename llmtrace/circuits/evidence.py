"""How far the evidence for a claim goes. **Rung**: a step of the evidence ladder; a claim stands on the highest one that it has reached.

The words «causal», «cause» and «responsible for» belong to rungs from 3 on.
"""

from __future__ import annotations

from enum import IntEnum

PROMPTS = 6
"""Prompts from which a score counts as replicated: with n of them, the smallest p of a two-sided sign-flip test is 2^(1-n), above 0.05 for fewer."""


class Rung(IntEnum):
    """A step of the evidence ladder."""

    OBSERVED = 0
    """A pattern or score in few prompts."""
    REPLICATED = 1
    """Over many prompts, with an interval; or the geometry of weights."""
    ATTRIBUTED = 2
    """A gradient or relevance estimate, its completeness gap reported."""
    CAUSAL = 3
    """An edit in flight changed the metric by more than random nodes of the same kind do."""
    SUFFICIENT = 4
    """A circuit was run alone: faithfulness, completeness and minimality within stated bounds."""
    VERIFIED = 5
    """Rungs 3 and 4 on prompts that took no part in the search."""

    @property
    def title(self) -> str:
        """`replicated`"""
        return "sufficient and minimal" if self is Rung.SUFFICIENT else self.name.lower()
