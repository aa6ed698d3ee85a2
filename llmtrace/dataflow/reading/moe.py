"""Mixtures of experts that are put together of operators: the choice, the experts' matrices, the halves, the sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from attrs import frozen

from llmtrace.dataflow.constants import Source, bias, matrix
from llmtrace.dataflow.forms import Choices, Form, Rows
from llmtrace.dataflow.identify.activation import find_activation
from llmtrace.dataflow.identify.ends import find_factor
from llmtrace.dataflow.identify.measured import Unfit
from llmtrace.dataflow.identify.router import FoundRouter, find_router
from llmtrace.dataflow.locating.anatomy_moe import ExpertLine, MoeCell, Routing, SharedCell
from llmtrace.dataflow.reading.mlp import read_halves, read_mlp
from llmtrace.dataflow.reading.norms import Weights
from llmtrace.dataflow.reading.reader import Reader, Unreadable
from llmtrace.dataflow.segments import Segment
from llmtrace.schema.sites import Array
from llmtrace.spec import GatedMlp, Mlp, Moe, Shared


@frozen(eq=False)
class ReadMoe:
    """The record, where its signals are, and what reads its weights."""

    module: Moe
    places: dict[str, tuple[str, Form]]
    weights: Weights


def read_moe(reader: Reader, cell: MoeCell) -> ReadMoe:
    """What a mixture of experts is. Raises `Unreadable`."""
    routing = cell.routing
    lines = (*cell.lines, cell.down)
    router, places, weights = read_routing(reader, routing)
    layout = _layout(reader, cell)
    told = beside(routing) or ((routing.index,) if layout == "expert" else ())
    places |= {"post": (cell.post, Choices(layout, beside=told)), "out": (cell.out, Rows())}
    if cell.entering:
        places["expert_in"] = (cell.entering, Choices(layout, beside=told))
    biased = [bool(one.bias) for one in lines]
    if any(biased) != all(biased):
        raise Unreadable("some matrices of its experts have a bias and others have none")
    width = reader.probe[cell.post].shape[-1]
    expert: GatedMlp | Mlp
    if len(cell.halves) == 1:
        (one,) = cell.lines
        expert = Mlp(width, _activation(reader, cell, one, width), biased[0])
        places["pre"] = (one.makes, Choices(layout, beside=told))
        _put(reader, weights, "in", one, None)
    else:
        joint, halves = read_halves(reader, tuple(one.makes for one in cell.lines), cell.halves, cell.post)
        for name, suffix, (place, columns) in zip(("pre", "pre_linear"), ("gate", "in"), halves, strict=True):
            one = cell.lines[place]
            places[name] = (one.makes, Choices(layout, columns, told))
            _put(reader, weights, suffix, one, columns)
        expert = GatedMlp(width, joint.act, biased[0], joint.clamp)
    _put(reader, weights, "out", cell.down, None)
    factor = read_factor(reader, cell.scales)
    if factor != 1:  # weights that are multiplied later than where they are seen are left to the equations
        del places["router_weights"]
    shared = read_shared(reader, cell.shared, places, weights)
    module = Moe(
        reader.probe[routing.line.makes].shape[-1], router.choices, expert, router.scoring, router.renormalise, router.scale * factor,
        bool(routing.line.bias), router.correction is not None, shared, router.eps, router.near,
        "inputs" if cell.entering else "outputs", router.groups,
    )  # fmt: skip
    return ReadMoe(module, places, weights)


def _activation(reader: Reader, cell: MoeCell, one: ExpertLine, width: int) -> str:
    """Of experts that are not gated."""
    found = reader.once("activation of experts", [one.makes], cell.post, lambda: find_activation(
        reader.rows(one.makes, cell.post), width, unit=reader.unit(one.makes, cell.post)
    ))  # fmt: skip
    if isinstance(found, Unfit):
        raise Unreadable(f"the activation of its experts is none that is known, because {found.why}")
    return found.act


def read_factor(reader: Reader, scales: Sequence[Segment]) -> float:
    """What the experts' sum is multiplied by. Raises `Unreadable`."""
    if not scales:
        return 1.0
    first, last = scales[0].first, scales[-1].last
    found = find_factor(
        reader.rows(first, last), reader.probe[last].shape[-1],
        candidates=reader.numbers(vertex for one in scales for vertex in one.vertices), unit=reader.unit(last),
    )  # fmt: skip
    if isinstance(found, Unfit):
        raise Unreadable(f"its experts' sum is not multiplied by one number, because {found.why}")
    return found


def beside(routing: Routing) -> tuple[str, ...]:
    """What tells the order of the chosen experts, where they are not best first."""
    sorts = routing.choice is None or routing.choice.attributes.get("sorted", 1)
    return () if sorts else (routing.index, routing.best)


def read_routing(
    reader: Reader, routing: Routing
) -> tuple[FoundRouter, dict[str, tuple[str, Form]], dict[str, Source]]:
    """How experts are chosen and weighed, where that is seen, and what reads the router's weights. Raises `Unreadable`."""
    router = _router(reader, routing)
    each = Choices("token", beside=beside(routing), plain=True)
    spread = Choices("token", beside=beside(routing) or (routing.index,), plain=True, every=True)
    places: dict[str, tuple[str, Form]] = {
        "router": (routing.line.makes, Rows()), "expert_index": (routing.index, each),
        "router_weights": (routing.weights, spread if routing.spread else each),
    }  # fmt: skip
    weights: dict[str, Source] = {"W_router": matrix(routing.line, reader.constants)}
    if routing.line.bias:
        weights["b_router"] = bias(routing.line, reader.constants)
    if router.correction is not None:
        weights["b_correction"] = _correction(reader, routing, router.correction)
    return router, places, weights


def _router(reader: Reader, routing: Routing) -> FoundRouter:
    """How logits become a choice."""
    first, wanted = routing.line.makes, (routing.ranked, routing.index, routing.weights)
    between = _between(reader, first, (routing.index, routing.weights))

    def piece(logits: Array) -> tuple[Array, Array, Array]:
        given = {first: reader.native(first, logits)}
        found = given | reader.pieces.run(given, [name for name in wanted if name != first], len(logits))
        ranked, index = (found[name].reshape(len(logits), -1) for name in wanted[:2])
        weights = found[routing.weights]
        weights = _of_chosen(weights, index) if routing.spread else weights.reshape(len(logits), -1)
        return ranked.astype(np.float32), index, weights.astype(np.float32)

    found = find_router(
        piece,
        reader.probe[first].shape[-1],
        candidates=reader.numbers(between.vertices),
        unit=reader.unit(first, routing.ranked, routing.weights),
        ordered=routing.choice is None,
    )
    if isinstance(found, Unfit):
        raise Unreadable(f"its router chooses and weighs in no way that is known, because {found.why}")
    return found


def _of_chosen(weights: Array, index: Array) -> Array:
    """Those of the chosen experts [token choice], of weights of all [token expert]; the others must be nought."""
    rows = weights.reshape(len(index), -1).copy()
    chosen = np.take_along_axis(rows, index, -1)
    np.put_along_axis(rows, index, 0, -1)
    if rows.any():
        raise Unreadable("experts that are not chosen have weights too")
    return chosen


def _between(reader: Reader, first: str, lasts: Sequence[str]) -> Segment:
    found = {vertex.index: vertex for last in lasts for vertex in reader.flow.between(first, last)}
    return Segment("other", first, lasts[-1], tuple(found[index] for index in sorted(found)))


def _correction(reader: Reader, routing: Routing, measured: Array) -> Source:
    source = reader.vector(_between(reader, routing.line.makes, (routing.ranked,)), measured)
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
    if found.module.bias:
        raise Unreadable("its shared expert has biases")
    places["shared_out"] = (cell.ends, Rows())
    weights |= {f"shared.{name}": read for name, read in found.weights.items()}
    if cell.mix is None:
        return Shared(found.module)
    act = find_activation(reader.rows(cell.mix.makes, cell.factor), 1, unit=reader.unit(cell.mix.makes, cell.factor))
    if isinstance(act, Unfit) or act.act != "sigmoid" or reader.probe[cell.mix.makes].shape[-1] != 1 or cell.mix.bias:
        raise Unreadable("what multiplies its shared expert's output is no sigmoid of one logit")
    weights["shared.W_mix"] = matrix(cell.mix, reader.constants)
    return Shared(found.module, gated=True)
