"""Weights that are called otherwise than the reference's. **Renumbered**: the norms of a block of which a branch could not be read; they are
numbered by what is left, so `ln1` may be the reference's `ln2`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llmtrace.comparison.specs import unread
from llmtrace.schema.evaluate import Weights
from llmtrace.schema.sites import Array
from llmtrace.spec import ModelSpec


def without_renumbered(reference: ModelSpec, candidate: ModelSpec, weights: Weights) -> Weights:
    """The candidate's weights by the names that they share with the reference's: renumbered ones are left out."""
    hidden = tuple(
        f"blocks.{layer}.{norm.name}."
        for layer, (ours, theirs) in enumerate(zip(reference.blocks, candidate.blocks, strict=False))
        if unread(ours, theirs)
        for norm in ours.norms
    )
    return _Without(weights, hidden) if hidden else weights


class _Without(Mapping[str, Array]):
    """Weights but for those whose names begin so."""

    def __init__(self, weights: Weights, hidden: tuple[str, ...]) -> None:
        self._weights, self._hidden = weights, hidden

    def __getitem__(self, name: str) -> Array:
        if name.startswith(self._hidden):
            raise KeyError(name)
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._weights if not name.startswith(self._hidden))

    def __len__(self) -> int:
        return sum(1 for _ in self)
