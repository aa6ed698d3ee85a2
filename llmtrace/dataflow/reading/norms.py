"""Norms: the record, and where their weights stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from attrs import evolve, frozen

from llmtrace.dataflow.constants import Source
from llmtrace.dataflow.identify.measured import Unfit
from llmtrace.dataflow.identify.norm import FoundNorm, find_head_norm, find_norm
from llmtrace.dataflow.reading.reader import Reader, Unreadable
from llmtrace.dataflow.segments import Segment
from llmtrace.schema.sites import Array
from llmtrace.spec import Norm

Weights: TypeAlias = Mapping[str, Source]
"""Weight to where it comes from."""


@frozen(eq=False)
class ReadNorm:
    """A norm, and what reads its weights: `w`, `b`, in their own shapes."""

    norm: Norm
    weights: Weights


def read_norm(reader: Reader, segment: Segment, width: int) -> ReadNorm:
    """A norm of rows. Raises `Unreadable`."""
    found = find_norm(
        reader.rows(segment.first, segment.last),
        width,
        candidates=_eps(reader, segment),
        unit=reader.unit(segment.first, segment.last),
    )
    return _read(reader, segment, found, (width,))


def read_head_norm(
    reader: Reader, segment: Segment, piece: Callable[[Array], Array], heads: int, width: int, head: str
) -> ReadNorm:
    """A norm of `[token head d_head]`. Raises `Unreadable`."""
    unit = reader.unit(segment.first, segment.last)
    found = find_head_norm(piece, heads, width, head=head, candidates=_eps(reader, segment), unit=unit)
    each = isinstance(found, FoundNorm) and (found.norm.each or " " in found.norm.over)
    return _read(reader, segment, found, (heads, width) if each else (width,))


def _eps(reader: Reader, segment: Segment) -> list[float]:
    attributes = [float(vertex.attributes["epsilon"]) for vertex in segment.vertices if "epsilon" in vertex.attributes]
    return attributes + reader.numbers(segment.vertices)


def _read(reader: Reader, segment: Segment, found: FoundNorm | Unfit, shape: tuple[int, ...]) -> ReadNorm:
    if isinstance(found, Unfit):
        raise Unreadable(f"what looks like a norm is none, because {found.why}")
    size = int(np.prod(shape))
    weights: dict[str, Source] = {}
    norm = found.norm
    for name, measured, neutral in (("w", found.w, np.ones(size)), ("b", found.b, np.zeros(size))):
        source = reader.vector(segment, (neutral if measured is None else measured).reshape(shape))
        if source is not None:
            weights[name] = source
            norm = evolve(norm, weight=True) if name == "w" else evolve(norm, bias=True)
        elif measured is not None:
            raise Unreadable(
                f"the {'weight' if name == 'w' else 'bias'} of a norm stands nowhere in the graph as it works"
            )
    return ReadNorm(norm, weights)
