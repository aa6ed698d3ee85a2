"""Parts of a graph as functions: content goes in by name, what follows from it comes out. What a part reads besides, from the prompt's
length to masks and weights, is the graph's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from llmtrace.schema.sites import Array
from llmtrace_onnxruntime.graph import Graph


class Runs(Protocol):
    """What runs parts of a graph."""

    def subgraph(
        self, inputs: Sequence[str], outputs: Sequence[str]
    ) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
        """A part of the graph, from values that are given to values that are wanted."""


class Pieces:
    """Parts of one graph, run on what is given."""

    def __init__(self, graph: Graph, runs: Runs, feeds: Callable[[Sequence[int]], Mapping[str, Array]]) -> None:
        """`feeds` makes the graph's inputs for a prompt."""
        self._graph = graph
        self._runs = runs
        self._feeds = feeds

    def run(self, given: Mapping[str, Array], wanted: Sequence[str], tokens: int) -> dict[str, Array]:
        """The wanted values for a prompt of so many tokens, content taken as given."""
        needed = self._needed(given, wanted)
        part = self._runs.subgraph((*given, *needed), wanted)
        fed = self._feeds([0] * tokens) if needed else {}
        return part({**given, **{name: fed[name] for name in needed}})

    def _needed(self, given: Mapping[str, Array], wanted: Sequence[str]) -> list[str]:
        """The graph's inputs that the wanted values rest on besides."""
        seen: set[str] = set(given)
        waiting, found = [name for name in wanted if name not in seen], []
        inputs = set(self._graph.inputs)
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in inputs:
                found.append(name)
            elif (vertex := self._graph.maker.get(name)) is not None:
                waiting += [each for each in vertex.reads if each]
        return sorted(found)


def constants_of(runs: Runs) -> Callable[[Sequence[str]], Mapping[str, Array]]:
    """What computes values that no input changes."""
    return lambda names: runs.subgraph((), tuple(names))({})


def as_given(array: Array, like: Array, tokens: int | None = None) -> Array:
    """An array in the type and shape of a value of the graph."""
    del tokens
    return np.ascontiguousarray(array, like.dtype).reshape(like.shape)
