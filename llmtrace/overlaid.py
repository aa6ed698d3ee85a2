"""Weights seen through others. Each is read when it is asked for; asking whether one is there reads none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llmtrace.schema.evaluate import Weights
from llmtrace.schema.sites import Array


class Over(Mapping[str, Array]):
    """Weights, and below them others, which are those that the first have none of."""

    def __init__(self, above: Weights, below: Weights) -> None:
        self._above, self._below = above, below

    def __getitem__(self, name: str) -> Array:
        return self._above[name] if name in self._above else self._below[name]

    def __contains__(self, name: object) -> bool:
        return name in self._above or name in self._below

    def __iter__(self) -> Iterator[str]:
        yield from self._above
        yield from (name for name in self._below if name not in self._above)

    def __len__(self) -> int:
        return sum(1 for _ in self)
