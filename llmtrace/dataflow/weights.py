"""Weights by schema name, read out of the graph on access."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llmtrace.dataflow.constants import Source
from llmtrace.dataflow.graph import Graph
from llmtrace.schema.sites import Array


class SourcedWeights(Mapping[str, Array]):
    """Read-only arrays, made anew each time."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources

    def __getitem__(self, name: str) -> Array:
        array = self._sources[name].read().view()
        array.flags.writeable = False
        return array

    def __contains__(self, name: object) -> bool:
        return name in self._sources

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


def stored(sources: Mapping[str, Source], graph: Graph, kinds: Mapping[str, str]) -> dict[str, str]:
    """Weight to the type that its numbers have in the file; `kinds` are those of initialisers."""
    return {
        name: source.packed or kinds.get(graph.root(source.constant), "float32") for name, source in sources.items()
    }
