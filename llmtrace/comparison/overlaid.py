"""Weights of which some are hidden. Each is read when it is asked for; asking whether one is there reads none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llmtrace.schema.evaluate import Weights
from llmtrace.schema.sites import Array


class Without(Mapping[str, Array]):
    """Weights but for those whose names begin so."""

    def __init__(self, weights: Weights, hidden: tuple[str, ...]) -> None:
        self._weights, self._hidden = weights, hidden

    def __getitem__(self, name: str) -> Array:
        if name.startswith(self._hidden):
            raise KeyError(name)
        return self._weights[name]

    def __contains__(self, name: object) -> bool:
        return name in self._weights and not str(name).startswith(self._hidden)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._weights if not name.startswith(self._hidden))

    def __len__(self) -> int:
        return sum(1 for _ in self)
