"""llama.cpp's computation as a graph. **Vertex**: one node, with what it reads; **leaf**: a weight, an input or a cache, by its name.

Names of nodes differ from one architecture to the next, and some lie; what a node reads does not. So a vertex is found by the
weights and caches that it reads, and by way of the vertices that only look at another's memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from math import prod

from attrs import frozen

LOOKS = frozenset({"RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE", "CONT", "CAST", "CPY", "DUP"})
"""Operations that change no value."""


@frozen
class Vertex:
    """One node of the graph, in the order in which it is computed."""

    index: int
    """Its place; the same in every run under the same settings."""
    op: str
    """ggml's name of the operation."""
    name: str
    """llama.cpp's name of the node: for messages only."""
    shape: tuple[int, ...]
    """As NumPy has it: slowest axis first."""
    params: tuple[int, ...]
    """The operation's parameters, as 32-bit words."""
    reads: tuple[int | str, ...]
    """Vertices by index, leaves by name."""

    @property
    def vertices(self) -> tuple[int, ...]:
        """The vertices among what it reads."""
        return tuple(each for each in self.reads if isinstance(each, int))

    @property
    def leaves(self) -> tuple[str, ...]:
        """The leaves among what it reads."""
        return tuple(each for each in self.reads if isinstance(each, str))

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


@frozen(slots=False)
class Graph:
    """All vertices of one run."""

    vertices: Sequence[Vertex]

    @cached_property
    def readers(self) -> dict[int, tuple[int, ...]]:
        """Vertex to the vertices that read it, in order."""
        found: dict[int, list[int]] = {vertex.index: [] for vertex in self.vertices}
        for vertex in self.vertices:
            for each in dict.fromkeys(vertex.vertices):
                found[each].append(vertex.index)
        return {index: tuple(readers) for index, readers in found.items()}

    def of(self, leaf: str, *ops: str) -> Vertex | None:
        """The first vertex that reads a leaf, by one of these operations."""
        return next((v for v in self._of_leaf.get(leaf, ()) if v.op in ops), None)

    @cached_property
    def _of_leaf(self) -> dict[str, list[Vertex]]:
        found: dict[str, list[Vertex]] = {}
        for vertex in self.vertices:
            for leaf in vertex.leaves:
                found.setdefault(leaf, []).append(vertex)
        return found

    def source(self, index: int) -> Vertex:
        """The vertex that computed what one holds: back through those that only look at another's memory, not into part of one."""
        vertex = self.vertices[index]
        while vertex.op in LOOKS and vertex.vertices:
            before = self.vertices[vertex.vertices[0]]
            if before.size != vertex.size:
                break
            vertex = before
        return vertex

    def after(self, index: int) -> Iterator[Vertex]:
        """The vertices that read one, directly or through those that only look."""
        waiting = list(self.readers[index])
        while waiting:
            vertex = self.vertices[waiting.pop(0)]
            if vertex.op in LOOKS:
                waiting += self.readers[vertex.index]
            else:
                yield vertex

    def rests_on(self, index: int, leaf: str) -> bool:
        """Whether a vertex only looks at a leaf, or at what was written into it."""
        vertex = self.vertices[index]
        while vertex.op in LOOKS or vertex.op == "SET_ROWS":
            if leaf in vertex.leaves:
                return True
            if not vertex.vertices:
                return False
            vertex = self.vertices[vertex.vertices[-1 if vertex.op == "SET_ROWS" else 0]]
        return False
