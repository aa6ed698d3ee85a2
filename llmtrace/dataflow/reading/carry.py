"""What of the stream goes on at a sum: a factor of all channels or of each, and what is added to it before."""

from __future__ import annotations

import numpy as np
from attrs import frozen

from llmtrace.dataflow.constants import Source
from llmtrace.dataflow.identify.ends import find_affine
from llmtrace.dataflow.identify.measured import Unfit
from llmtrace.dataflow.reading.norms import Weights
from llmtrace.dataflow.reading.reader import Reader, Unreadable
from llmtrace.dataflow.segments import Segment
from llmtrace.spec import Carry


@frozen(eq=False)
class ReadCarry:
    """The record, and what reads its weights: `w`, `b`."""

    carry: Carry
    weights: Weights


def read_carry(reader: Reader, factor: Segment, width: int) -> ReadCarry:
    """What multiplies the stream. Raises `Unreadable`."""
    first, last = factor.first, factor.last
    found = find_affine(
        reader.rows(first, last), width, candidates=reader.numbers(factor.vertices), unit=reader.unit(first, last)
    )
    if isinstance(found, Unfit):
        raise Unreadable(f"it is not multiplied by numbers, because {found.why}")
    weights: dict[str, Source] = {}
    w = reader.vector(factor, np.broadcast_to(found.factor, (width,)))
    if w is not None:
        weights["w"] = w
    elif not isinstance(found.factor, float):
        raise Unreadable("what multiplies its channels stands nowhere in the graph as it works")
    b = reader.vector(factor, np.zeros(width) if found.bias is None else found.bias)
    if b is not None:
        weights["b"] = b
    elif found.bias is not None:
        raise Unreadable("what is added to its channels stands nowhere in the graph as it works")
    scale = found.factor if w is None and isinstance(found.factor, float) else 1.0
    return ReadCarry(Carry("", scale, w is not None, b is not None), weights)
