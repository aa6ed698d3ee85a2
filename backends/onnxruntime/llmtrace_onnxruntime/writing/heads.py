"""Values of heads. **Layout**: `flat` [batch token head*d], `apart` [batch token head d], or `first` [batch head token d]."""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import evolve, frozen

from llmtrace.spec import Norm
from llmtrace_onnxruntime.writing.graph import Graph
from llmtrace_onnxruntime.writing.norm import norm
from llmtrace_onnxruntime.writing.style import Attributes

Layout: TypeAlias = Literal["flat", "apart", "first"]
LAYOUTS: tuple[Layout, ...] = ("flat", "apart", "first")
SWAPPED: Attributes = {"perm": [0, 2, 1, 3]}


@frozen
class Heads:
    """A value whose channels belong to heads."""

    name: str
    count: int
    width: int
    layout: Layout = "flat"

    def of(self, name: str) -> Heads:
        """Another value that is laid out so."""
        return evolve(self, name=name)


def laid(graph: Graph, x: Heads, layout: Layout) -> Heads:
    """The same heads in another layout."""
    while x.layout != layout:
        here, there = LAYOUTS.index(x.layout), LAYOUTS.index(layout)
        following = LAYOUTS[here + (1 if there > here else -1)]
        if {x.layout, following} == {"flat", "apart"}:
            shape = (0, 0, x.count, x.width) if following == "apart" else (0, 0, x.count * x.width)
            name = graph.reshape(x.name, *shape)
        else:
            name = graph.op("Transpose", x.name, attributes=SWAPPED)
        x = evolve(x, name=name, layout=following)
    return x


def head_norm(graph: Graph, n: Norm | None, x: Heads, at: str) -> Heads:
    """A norm of every head, or of the whole width; x where there is none."""
    if n is None:
        return x
    if len(n.over.split()) > 1:
        x = laid(graph, x, "flat")
        return x.of(norm(graph, n, x.name, at, x.count * x.width))
    x = laid(graph, x, "apart") if x.layout == "flat" else x
    return x.of(norm(graph, n, x.name, at, x.width, heads_first=x.layout == "first"))
