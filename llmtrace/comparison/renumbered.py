"""Weights that are called otherwise than the reference's. **Renumbered**: the norms of a block of which a branch could not be read; they are
numbered by what is left, so `ln1` may be the reference's `ln2`.
"""

from __future__ import annotations

from llmtrace.comparison.overlaid import Without
from llmtrace.comparison.specs import unread
from llmtrace.schema.evaluate import Weights
from llmtrace.spec import ModelSpec


def without_renumbered(reference: ModelSpec, candidate: ModelSpec, weights: Weights) -> Weights:
    """The candidate's weights by the names that they share with the reference's: renumbered ones are left out."""
    hidden = tuple(
        f"blocks.{layer}.{norm.name}."
        for layer, (ours, theirs) in enumerate(zip(reference.blocks, candidate.blocks, strict=False))
        if unread(ours, theirs)
        for norm in ours.norms
    )
    return Without(weights, hidden) if hidden else weights
