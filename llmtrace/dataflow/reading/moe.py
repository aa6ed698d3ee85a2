"""Mixtures of experts that are put together of operators: the choice, the experts' matrices, the halves, the sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from attrs import frozen

from llmtrace.dataflow.constants import Source, bias, matrix
from llmtrace.dataflow.forms import Choices, Form, Rows
from llmtrace.dataflow.identify.activation import find_activation
from llmtrace.dataflow.identify.measured import Unfit
from llmtrace.dataflow.identify.router import FoundRouter, find_router
from llmtrace.dataflow.locating.anatomy import ExpertLine, MoeCell, SharedCell
from llmtrace.dataflow.reading.mlp import read_halves, read_mlp
from llmtrace.dataflow.reading.norms import Weights
from llmtrace.dataflow.reading.reader import Reader, Unreadable
from llmtrace.dataflow.segments import Segment
from llmtrace.schema.sites import Array
from llmtrace.spec import GatedMlp, Moe, Shared


@frozen(eq=False)
class ReadMoe:
    """The record, where its signals are, and what reads its weights."""

    module: Moe
    places: dict[str, tuple[str, Form]]
    weights: Weights


def read_moe(reader: Reader, cell: MoeCell) -> ReadMoe:
    """What a mixture of experts is. Raises `Unreadable`."""
    if len(cell.halves) != 2:
        raise Unreadable("its experts are not gated")
    routing = cell.routing
    lines = (*cell.lines, cell.down)
    router = _router(reader, cell)
    unsorted = not routing.choice.attributes.get("sorted", 1)
    layout = _layout(reader, cell)
    told = (routing.index, routing.best) if unsorted else (routing.index,) if layout == "expert" else ()
    each = Choices("token", beside=told if unsorted else (), plain=True)
    places: dict[str, tuple[str, Form]] = {
        "router": (routing.line.makes, Rows()), "expert_index": (routing.index, each), "router_weights": (routing.weights, each),
        "post": (cell.post, Choices(layout, beside=told)), "out": (cell.out, Rows()),
    }  # fmt: skip
    weights: dict[str, Source] = {"W_router": matrix(routing.line, reader.constants)}
    if routing.line.bias:
        weights["b_router"] = bias(routing.line, reader.constants)
    if router.correction is not None:
        weights["b_correction"] = _correction(reader, cell, router.correction)
    joint, halves = read_halves(reader, tuple(one.makes for one in cell.lines), cell.halves, cell.post)
    for name, suffix, (place, columns) in zip(("pre", "pre_linear"), ("gate", "in"), halves, strict=True):
        one = cell.lines[place]
        places[name] = (one.makes, Choices(layout, columns, told))
        _put(reader, weights, suffix, one, columns)
    _put(reader, weights, "out", cell.down, None)
    biased = [bool(one.bias) for one in lines]
    if any(biased) != all(biased):
        raise Unreadable("some matrices of its experts have a bias and others have none")
    expert = GatedMlp(reader.probe[cell.post].shape[-1], joint.act, biased[0], joint.clamp)
    shared = read_shared(reader, cell.shared, places, weights)
    module = Moe(
        reader.probe[routing.line.makes].shape[-1], router.choices, expert, router.scoring, router.renormalise, router.scale,
        bool(routing.line.bias), router.correction is not None, shared,
    )  # fmt: skip
    return ReadMoe(module, places, weights)


def _router(reader: Reader, cell: MoeCell) -> FoundRouter:
    """How logits become a choice."""
    routing = cell.routing
    first, wanted = routing.line.makes, (routing.ranked, routing.index, routing.weights)
    between = _between(reader, first, (routing.index, routing.weights))

    def piece(logits: Array) -> tuple[Array, Array, Array]:
        given = {first: reader.native(first, logits)}
        found = given | reader.pieces.run(given, [name for name in wanted if name != first], len(logits))
        ranked, index, weights = (found[name].reshape(len(logits), -1) for name in wanted)
        return ranked.astype(np.float32), index, weights.astype(np.float32)

    found = find_router(
        piece,
        reader.probe[first].shape[-1],
        candidates=reader.numbers(between.vertices),
        unit=reader.unit(first, routing.ranked, routing.weights),
    )
    if isinstance(found, Unfit):
        raise Unreadable(f"its router chooses and weighs in no way that is known, because {found.why}")
    return found


def _between(reader: Reader, first: str, lasts: Sequence[str]) -> Segment:
    found = {vertex.index: vertex for last in lasts for vertex in reader.flow.between(first, last)}
    return Segment("other", first, lasts[-1], tuple(found[index] for index in sorted(found)))


def _correction(reader: Reader, cell: MoeCell, measured: Array) -> Source:
    source = reader.vector(_between(reader, cell.routing.line.makes, (cell.routing.ranked,)), measured)
    if source is None:
        raise Unreadable("the correction of its choice stands nowhere in the graph as it works")
    return source


def _layout(reader: Reader, cell: MoeCell) -> Literal["token", "choice", "expert"]:
    """In which order the rows of its experts follow each other."""
    if cell.down.gather is None:
        return "expert"
    index, looked = cell.routing.index, cell.down.gather.reads[1]
    like = reader.probe[index]
    numbers = np.arange(like.size).reshape(like.shape).astype(like.dtype)
    given = {index: numbers}
    order = (given | reader.pieces.run(given, [looked] if looked != index else [], reader.tokens))[looked].reshape(-1)
    if np.array_equal(order, numbers.reshape(-1)):
        return "token"
    if np.array_equal(order, numbers.reshape(reader.tokens, -1).T.reshape(-1)):
        return "choice"
    raise Unreadable("the rows of its experts follow neither tokens nor choices")


def _put(reader: Reader, weights: dict[str, Source], suffix: str, one: ExpertLine, columns: Array | None) -> None:
    """Put the matrices and biases of a line among the weights, in the schema's shapes."""
    name = one.gather.reads[0] if one.gather is not None else one.product.reads[one.place]
    perm = _turned(reader, one)
    shape = np.asarray(reader.constants[name]).shape
    if len(shape) != 3:
        raise Unreadable(f"the matrices of its experts have the shape {list(shape)}")

    def read() -> Array:
        array = np.asarray(reader.constants[name]).transpose(perm)
        array = array.swapaxes(1, 2) if one.place == 0 else array
        return array if columns is None else array[..., columns]

    def read_bias() -> Array:
        array = np.asarray(reader.constants[one.bias]).reshape(shape[0], -1)
        return array if columns is None else array[..., columns]

    weights[f"W_{suffix}"] = Source(name, read)
    if one.bias:
        weights[f"b_{suffix}"] = Source(one.bias, read_bias)


def _turned(reader: Reader, one: ExpertLine) -> tuple[int, ...]:
    """How the axes of the matrices are transposed between their look-up and the product."""
    perm, name = (0, 1, 2), one.product.reads[one.place]
    while one.gather is not None and (vertex := reader.flow.graph.maker[name]) is not one.gather:
        if vertex.op == "Transpose":
            own = tuple(vertex.attributes.get("perm", (2, 1, 0)))
            perm = tuple(own[axis] for axis in perm) if len(own) == len(perm) else ()
        name = vertex.reads[0]
    if sorted(perm) != [0, 1, 2] or perm[0] != 0:
        raise Unreadable("the matrices of its experts are transposed in a way that mixes experts")
    return perm


def read_shared(
    reader: Reader, cell: SharedCell | None, places: dict[str, tuple[str, Form]], weights: dict[str, Source]
) -> Shared | None:
    """An expert that every token takes; its output is put among the places, its matrices among the weights. Raises `Unreadable`."""
    if cell is None:
        return None
    found = read_mlp(reader, cell.mlp)
    if cell.mlp.tail.scales or cell.mlp.tail.post is not None:
        raise Unreadable("the output of its shared expert is scaled or normed")
    if not isinstance(found.module, GatedMlp) or found.module.bias:
        raise Unreadable("its shared expert is not gated, or has biases")
    places["shared_out"] = (cell.ends, Rows())
    weights |= {f"shared.{name}": read for name, read in found.weights.items()}
    if cell.mix is None:
        return Shared(found.module)
    act = find_activation(reader.rows(cell.mix.makes, cell.factor), 1, unit=reader.unit(cell.mix.makes, cell.factor))
    if isinstance(act, Unfit) or act.act != "sigmoid" or reader.probe[cell.mix.makes].shape[-1] != 1 or cell.mix.bias:
        raise Unreadable("what multiplies its shared expert's output is no sigmoid of one logit")
    weights["shared.W_mix"] = matrix(cell.mix, reader.constants)
    return Shared(found.module, gated=True)
