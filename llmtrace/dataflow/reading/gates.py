"""What becomes of the mixture before the last matrix: a norm, and a gate, a factor for each channel or for each head."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from attrs import evolve, frozen

from llmtrace.dataflow.constants import Source, matrix
from llmtrace.dataflow.forms import AXES, Form, Heads
from llmtrace.dataflow.identify.activation import find_activation
from llmtrace.dataflow.identify.measured import Unfit
from llmtrace.dataflow.locating.anatomy_attention import AttentionCell, GateCell
from llmtrace.dataflow.reading.heads import by_head, moved_heads, over_heads, split_heads
from llmtrace.dataflow.reading.norms import Weights, read_head_norm
from llmtrace.dataflow.reading.reader import Reader, Unreadable
from llmtrace.dataflow.segments import Segment
from llmtrace.schema.sites import Array
from llmtrace.spec import Gate, Norm


@frozen(eq=False)
class ReadMixture:
    """The norm and the gate of z, where its signals are, and what reads the weights."""

    norm: Norm | None
    gate: Gate | None
    places: Mapping[str, tuple[str, Form]]
    """`z`, `z_post`, and `gate` where there is one."""
    weights: Weights


def read_mixture(reader: Reader, cell: AttentionCell, heads: int, width: int) -> ReadMixture:
    """What lies between the mixture and the last matrix. Raises `Unreadable`."""
    rows, last = Heads(AXES, heads, width), cell.tail.line.reads
    places: dict[str, tuple[str, Form]] = {"z": (last, rows), "z_post": (last, rows)}
    weights: dict[str, Source] = {}
    norm = gate = None
    if cell.z_norm is not None or cell.gate is not None or cell.kept or cell.why_mixture:
        form = _lies(reader, cell, heads, width)
        places["z"] = (cell.core.z, form)
        if cell.z_norm is not None:
            norm = _norm(reader, cell.z_norm, moved_heads(reader, cell.core.z, cell.z_norm.first, form), weights)
    if cell.gate is not None:
        gate = _gate(reader, cell.gate, heads, width, places, weights)
    return ReadMixture(norm, gate, places, weights)


def _lies(reader: Reader, cell: AttentionCell, heads: int, width: int) -> Heads:
    """How heads lie in the mixture: a product has heads first, and so has an operator that makes more than rows of all."""
    shape = reader.probe[cell.core.z].shape
    if cell.core.fused and shape[-1] == heads * width:
        return Heads(AXES, heads, width, shape=(*(1,) * (len(shape) - 2), -1, heads * width))
    return Heads(("head", "token", "d_head"), heads, width, shape=(*shape[:-2], -1, width))


def _norm(reader: Reader, one: Segment, form: Heads, weights: dict[str, Source]) -> Norm:
    found = read_head_norm(reader, one, over_heads(reader, one, form), form.heads, form.width, "head")
    weights |= {f"z_norm.{name}": read for name, read in found.weights.items()}
    return evolve(found.norm, over=found.norm.over.replace("d_head", "d_value"))


def _gate(
    reader: Reader, cell: GateCell, heads: int, width: int, places: dict[str, tuple[str, Form]], weights: dict[str, Source]
) -> Gate:  # fmt: skip
    if cell.line.bias:
        raise Unreadable("the matrix of its gate has a bias")
    factors = reader.probe[cell.line.makes].size // reader.tokens
    per_head = reader.probe[cell.enters].size // reader.tokens == heads
    first = cell.bias.first if cell.bias is not None else cell.enters
    columns, form = split_heads(reader, cell.line.makes, first, 1 if per_head else width)
    if cell.bias is not None:
        weights["b_gate"] = _bias(reader, cell.bias, form)
    if columns.size not in (heads, heads * width) or len(columns) != heads:
        raise Unreadable(f"its gate has {factors} factors for {heads} heads of {width} channels")
    activation = "identity"
    if cell.enters != cell.factor:
        run = over_heads(reader, Segment("point", cell.enters, cell.factor, ()), form)

        def piece(x: Array) -> Array:
            return run(x.reshape(len(x), heads, -1)).reshape(len(x), -1)

        found = find_activation(piece, columns.size, unit=reader.unit(cell.enters, cell.factor))
        if isinstance(found, Unfit):
            raise Unreadable(f"the activation of its gate is none that is known, because {found.why}")
        activation = found.act
    places["gate"] = (cell.factor, form)
    weights["W_gate"] = by_head(matrix(cell.line, reader.constants), columns)
    return Gate(activation, per_head, cell.bias is not None)


def _bias(reader: Reader, one: Segment, form: Heads) -> Source:
    """What is added before the activation, a number for each head."""
    blank = np.zeros((reader.tokens, form.heads, form.width), np.float32)
    added = over_heads(reader, one, form)(blank)
    each = added[0, :, :1]
    found = reader.vector(one, each[:, 0])
    if not (added == each).all() or found is None:
        raise Unreadable("what is added to its gate is no number for each head")
    return found.then(lambda array: array.reshape(-1, 1))
