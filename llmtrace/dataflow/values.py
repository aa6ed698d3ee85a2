"""Which values of a graph an anatomy speaks of."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import attrs

from llmtrace.dataflow.graph import Graph, Vertex
from llmtrace.dataflow.locating.anatomy import Anatomy
from llmtrace.dataflow.segments import Line, Segment


def values(anatomy: Anatomy, graph: Graph) -> tuple[str, ...]:
    """All values that its parts name, once each."""
    return tuple(dict.fromkeys(name for name in _names(anatomy) if name in graph.maker))


def beneath(names: Collection[str], hidden: Collection[str], graph: Graph) -> Mapping[str, tuple[str, str]]:
    """Those of some values that only the parts of a graph have, and are sums: to what a run holds, and the constant that is added to it."""
    found = {}
    for name in names:
        vertex = graph.maker.get(name)
        if name in hidden and vertex is not None and vertex.op == "Add":
            held = [each for each in vertex.reads if each not in graph.constants and each not in hidden]
            added = [each for each in vertex.reads if each in graph.constants]
            if len(held) == len(added) == 1:
                found[name] = (held[0], added[0])
    return found


def _names(part: object) -> Iterator[str]:
    if isinstance(part, Segment):
        yield from (part.first, part.last)
    elif isinstance(part, Line):
        yield from (part.reads, part.makes)
    elif isinstance(part, str):
        yield part
    elif isinstance(part, tuple):
        for each in part:
            yield from _names(each)
    elif not isinstance(part, Vertex) and attrs.has(kind := type(part)):
        for each in attrs.fields_dict(kind):
            yield from _names(getattr(part, each))
