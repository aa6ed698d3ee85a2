"""Which values of a graph an anatomy speaks of."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from llmtrace_onnxruntime.anatomy import Anatomy
from llmtrace_onnxruntime.graph import Graph, Vertex
from llmtrace_onnxruntime.segments import Line, Segment


def values(anatomy: Anatomy, graph: Graph) -> tuple[str, ...]:
    """All values that its parts name, once each."""
    return tuple(dict.fromkeys(name for name in _names(anatomy) if name in graph.maker))


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
