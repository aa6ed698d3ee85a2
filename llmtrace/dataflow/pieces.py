"""Parts of a graph as functions: content goes in by name, what follows from it comes out. What a part reads besides, from the prompt's
length to masks and weights, is the graph's own.

**Length**: what follows from the shape of content alone. A part that rests on a length of content that it is not given, as what tracing wrote
does all over, would compute all that lies before it again: the length is computed once for each number of tokens, and given too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from attrs import field, frozen

from llmtrace.dataflow.graph import LENGTHS, Flow, Vertex
from llmtrace.schema.sites import Array


class RunsParts(Protocol):
    """What runs parts of a model for prompts of every length."""

    def run(self, given: Mapping[str, Array], wanted: Sequence[str], tokens: int) -> dict[str, Array]:
        """The wanted values for a prompt of so many tokens, content taken as given. Raises `BackendError` where a part does not run."""


class Runs(Protocol):
    """What runs parts of a graph."""

    def subgraph(
        self, inputs: Sequence[str], outputs: Sequence[str]
    ) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
        """A part of the graph, from values that are given to values that are wanted."""


@frozen(eq=False)
class Pieces:
    """Parts of one graph, run on what is given."""

    flow: Flow
    """The graph, and what is content in it."""
    runs: Runs
    feeds: Callable[[Sequence[int]], Mapping[str, Array]]
    """What makes the graph's inputs for a prompt."""
    _rests: dict[object, tuple[list[str], list[str]]] = field(factory=dict, init=False)
    _known: dict[int, dict[str, Array]] = field(factory=dict, init=False)
    """Number of tokens to lengths."""

    def run(self, given: Mapping[str, Array], wanted: Sequence[str], tokens: int) -> dict[str, Array]:
        """The wanted values for a prompt of so many tokens, content taken as given."""
        key = (*given, None, *wanted)
        if key not in self._rests:
            self._rests[key] = self._resting(given, wanted)
        inputs, lengths = self._rests[key]
        return self._run({**given, **self._lengths(lengths, tokens)}, inputs, wanted, tokens)

    def _run(
        self, given: Mapping[str, Array], inputs: Sequence[str], wanted: Sequence[str], tokens: int
    ) -> dict[str, Array]:
        fed = self.feeds([0] * tokens) if inputs else {}
        return self.runs.subgraph((*given, *inputs), wanted)({**given, **{name: fed[name] for name in inputs}})

    def _lengths(self, names: Sequence[str], tokens: int) -> Mapping[str, Array]:
        """Some lengths, as the graph computes them for so many tokens: those of the first part, mostly the tokens' own; then all at once."""
        known = self._known.setdefault(tokens, {})
        if missing := [name for name in names if name not in known]:
            if known:
                missing = [vertex.makes[0] for vertex in self.flow.graph.vertices if self._measures(vertex)]
            known |= self._run({}, self._back(missing, ())[0], missing, tokens)
        return {name: known[name] for name in names}

    def _resting(self, given: Iterable[str], wanted: Sequence[str]) -> tuple[list[str], list[str]]:
        """What the wanted values rest on besides: the graph's inputs, and lengths of content that does not follow from what is given."""
        graph = self.flow.graph
        last = max((graph.maker[name].index for name in wanted if name in graph.maker), default=-1)
        first = min((vertex.index for name in given for vertex in graph.readers.get(name, ())), default=last + 1)
        moved = set(given)
        for vertex in graph.vertices[first : last + 1]:
            if not moved.isdisjoint(vertex.reads):
                moved.update(filter(None, vertex.makes))
        return self._back(wanted, given, lambda vertex: self._measures(vertex) and vertex.reads[0] not in moved)

    def _measures(self, vertex: Vertex) -> bool:
        """Whether a vertex makes a length of content."""
        return vertex.op in LENGTHS and vertex.reads[0] in self.flow

    def _back(
        self, wanted: Iterable[str], given: Iterable[str], ends: Callable[[Vertex], bool] = lambda _: False
    ) -> tuple[list[str], list[str]]:
        """Back from some values to what is given: the graph's inputs, and what vertices make that are ends."""
        graph = self.flow.graph
        seen, waiting = set(given), list(wanted)
        inputs: list[str] = []
        made: list[str] = []
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            vertex = graph.maker.get(name)
            if vertex is None:
                inputs += [name] if name in graph.inputs else []
            elif ends(vertex):
                made.append(name)
            else:
                waiting += filter(None, vertex.reads)
        return sorted(inputs), sorted(made)


def constants_of(runs: Runs) -> Callable[[Sequence[str]], Mapping[str, Array]]:
    """What computes values that no input changes."""
    return lambda names: runs.subgraph((), tuple(names))({})
