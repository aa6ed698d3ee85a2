"""Queries, keys and values of which it is not known how they are made: where their heads are, so that all that is made of them is."""

from __future__ import annotations

import numpy as np

from llmtrace.dataflow.forms import Heads
from llmtrace.dataflow.identify.heads import find_heads
from llmtrace.dataflow.identify.maps import IndexMap
from llmtrace.dataflow.identify.measured import Unfit
from llmtrace.dataflow.locating.anatomy_attention import Met
from llmtrace.dataflow.reading.heads import ReadHeads, told_heads
from llmtrace.dataflow.reading.reader import Reader, Unreadable
from llmtrace.schema.sites import Array

SITES = {"q": "rot_q", "k": "rot_k", "v": "v"}
"""What each stands for."""


def read_met(reader: Reader, met: Met, width: int) -> ReadHeads:
    """The heads of one of the three, `width` channels each. Raises `Unreadable`."""
    value = reader.probe[met.heads]
    axes = [axis for axis, size in enumerate(value.shape) if size == reader.tokens]
    if len(axes) != 1:
        raise Unreadable(f"which axis of what stands for {SITES[met.name]} is that of tokens cannot be told")
    (axis,) = axes
    form = _lies(reader, value, axis, width)

    def piece(x: Array) -> Array:
        rows = x.reshape(len(x), *value.shape[:axis], *value.shape[axis + 1 :])
        native = np.ascontiguousarray(np.moveaxis(rows, 0, axis)).astype(value.dtype)
        return reader.onward(met.heads, native, met.meets, len(x))

    size = value.size // reader.tokens
    *_, sharing = told_heads(reader, piece, size, width, reader.unit(met.heads, met.meets), "repeated")
    if not sharing.grouped or not np.array_equal(sharing.columns.ravel(), np.arange(size)):
        raise Unreadable("heads are not read in the order in which they stand")
    return ReadHeads(
        met.name, sharing.columns, met.heads, form, 1.0, None, None, None, {SITES[met.name]: (met.heads, form)}, {}
    )


def _lies(reader: Reader, value: Array, axis: int, width: int) -> Heads:
    """How heads lie in a value of which one axis is that of tokens."""
    others = [size for place, size in enumerate(value.shape) if place != axis]
    columns = np.arange(value.size // reader.tokens).reshape(1, *others)
    token = np.arange(reader.tokens).reshape(-1, *(1,) * len(others))
    index = [np.moveaxis(np.broadcast_to(each, (reader.tokens, *others)), 0, axis) for each in (token, columns)]
    found = find_heads(IndexMap(*index), reader.tokens, width)
    if isinstance(found, Unfit):
        raise Unreadable(f"heads cannot be told, because {found.why}")
    shape = tuple(-1 if place == axis else size for place, size in enumerate(value.shape))
    return Heads(found.order, len(found.columns), width, shape=shape)
