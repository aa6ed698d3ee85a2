"""A graph of operators as dataflow. **Value**: an array, by its name; **vertex**: one operator at work, called as ONNX's operators are;
**initialiser**: a value that the graph holds; **content**: a value that depends on which tokens the prompt has, and not on their number
alone: masks, positions, rotary tables and weights are not content.

Names tell values apart and mean nothing else here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

from attrs import field, frozen

LENGTHS = frozenset({"Shape", "Size"})
"""Operators whose value depends on the shape of what they read only."""
FILLED = frozenset(
    ["zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"]
)
"""Operators that fill the shape of what they read with a number; ONNX, which has none, fills a `Shape`."""


@frozen(eq=False)
class Vertex:
    """One operator at work."""

    index: int
    """Its place in the order of computation."""
    op: str
    """`MatMul`; a standard operator or one of ONNX Runtime's."""
    domain: str
    """Whose operator it is: empty for a standard one, `com.microsoft` for one of ONNX Runtime's."""
    reads: tuple[str, ...]
    """Values, in the operator's order; empty where an optional one is left out."""
    makes: tuple[str, ...]
    """Values, in the operator's order; empty where one is not wanted."""
    attributes: Mapping[str, Any] = field(factory=dict)
    """What the operator is told besides, by the names of ONNX."""

    def reading(self, place: int) -> str:
        """What it reads at a place; empty where that is left out."""
        return self.reads[place] if place < len(self.reads) else ""


class Graph:
    """All vertices of a decoder's graph. What is content is known once `seed` is: the value in which tokens become vectors."""

    def __init__(
        self, vertices: Sequence[Vertex], initialisers: Iterable[str], sizes: Mapping[str, int], inputs: Iterable[str]
    ) -> None:
        """`vertices` in topological order; `sizes` are how many numbers a value has, where it is known; `inputs` what the caller feeds."""
        self.vertices = tuple(vertices)
        self.inputs = tuple(inputs)
        self.initialisers = frozenset(initialisers)
        self._sizes = dict(sizes)
        self.maker: dict[str, Vertex] = {name: vertex for vertex in self.vertices for name in vertex.makes if name}
        self.readers: dict[str, list[Vertex]] = {}
        for vertex in self.vertices:
            for name in dict.fromkeys(vertex.reads):
                if name:
                    self.readers.setdefault(name, []).append(vertex)

    @cached_property
    def constants(self) -> frozenset[str]:
        """Values that no input changes: initialisers, and what is computed from them alone."""
        found = set(self.initialisers)
        for vertex in self.vertices:
            if vertex.op not in ("RandomNormal", "RandomUniform") and found.issuperset(filter(None, vertex.reads)):
                found.update(filter(None, vertex.makes))
        return frozenset(found)

    def root(self, name: str) -> str:
        """The initialiser that a constant is made of, or a re-arrangement of."""
        while name not in self.initialisers and (vertex := self.maker.get(name)) is not None and vertex.reads:
            name = vertex.reads[0]
        return name

    def size(self, name: str) -> int:
        """How many numbers a value has; nought where that is not known."""
        return self._sizes.get(name, 0)

    def is_number(self, name: str) -> bool:
        """Whether a value that is no content is one number, as far as that can be told without computing it."""
        if name not in self._sizes:
            vertex = self.maker.get(name)
            read = [each for each in vertex.reads if each] if vertex is not None else []
            self._sizes[name] = 2  # until it is known; against going round in circles
            picked = (
                vertex is not None and vertex.op in ("Gather", "Slice", "Squeeze") and self._is_length(vertex.reads[0])
            )
            if picked or (read and all(self.is_number(each) for each in read)):
                self._sizes[name] = 1
        return self._sizes[name] == 1

    def _is_length(self, name: str) -> bool:
        vertex = self.maker.get(name)
        return vertex is not None and vertex.op in LENGTHS

    def flow(self, seed: str, beside: Mapping[int, frozenset[str]] = MappingProxyType({})) -> Flow:
        """What follows from a value, but from its shape alone; `beside` are vertices by index to what they read that is not to count."""
        return Flow(self, seed, beside)


class Flow:
    """The values that follow from one, in order, and which follows from which."""

    def __init__(self, graph: Graph, seed: str, beside: Mapping[int, frozenset[str]] = MappingProxyType({})) -> None:
        self.graph = graph
        self.seed = seed
        self.beside = beside
        """Vertices by index to what they read that does not count: content that comes to them past the stream."""
        self._bit = {seed: 0}
        self._before = {seed: 1}
        self._steps: list[tuple[Vertex, int, int]] = []
        """The vertices of the flow in order, what each follows from, and what it makes, as bits."""
        self._place = {seed: 0}
        """Value to how many of them were needed to make it."""
        for vertex in graph.vertices:
            if vertex.op in LENGTHS or vertex.op in FILLED or vertex.makes[:1] == (seed,):
                continue
            before, past = 0, self.beside.get(vertex.index, frozenset())
            for name in vertex.reads:
                before |= 0 if name in past else self._before.get(name, 0)
            if before:
                made = 0
                for name in filter(None, vertex.makes):
                    self._bit[name] = len(self._bit)
                    self._before[name] = before | 1 << self._bit[name]
                    self._place[name] = len(self._steps) + 1
                    made |= 1 << self._bit[name]
                self._steps.append((vertex, before, made))

    def __contains__(self, name: object) -> bool:
        return name in self._bit

    def reads(self, vertex: Vertex) -> tuple[str, ...]:
        """The values among what a vertex reads that belong to the flow, with repetitions."""
        past = self.beside.get(vertex.index, ())
        return tuple(name for name in vertex.reads if name in self._bit and name not in past)

    def follows(self, later: str, earlier: str) -> bool:
        """Whether one value follows from another, or is it."""
        return later in self._bit and earlier in self._bit and bool(self._before[later] >> self._bit[earlier] & 1)

    def order(self, name: str) -> int:
        """The place of a value in the order of computation."""
        return self._bit[name]

    def between(self, first: str, last: str) -> Iterator[Vertex]:
        """The vertices on any way from one value to another, in order."""
        if first not in self._bit or last not in self._bit:
            return
        begin, end = 1 << self._bit[first], self._before[last]
        for vertex, before, made in self._steps[self._place[first] : self._place[last]]:
            if before & begin and made & end:
                yield vertex

    def chain(self, first: str, last: str) -> tuple[str, ...]:
        """The values through which *every* way from one value to another goes, both ends included; empty where there is no way.

        In the order of computation, a value is one of them where nothing else that was made before is still to be read.
        """
        if not self.follows(last, first):
            return ()
        vertices = list(self.between(first, last))
        left: dict[str, int] = {}
        for vertex in vertices:
            for name in set(self.reads(vertex)):
                if self.follows(name, first):
                    left[name] = left.get(name, 0) + 1
        waiting, found = {first}, [first]
        for vertex in vertices:
            for name in set(self.reads(vertex)):
                if self.follows(name, first):
                    left[name] -= 1
                    if not left[name]:
                        waiting.discard(name)
            waiting.update(
                name for name in vertex.makes if name in self._bit and self.follows(last, name) and left.get(name, 0)
            )
            if last in vertex.makes:
                waiting.add(last)
            if len(waiting) == 1:
                (one,) = waiting
                if one != found[-1] and one in vertex.makes:
                    found.append(one)
        return tuple(found)
