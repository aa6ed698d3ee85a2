"""Rotary position embedding. **Angles**: what each pair of channels is turned by at each position, [sequence, width / 2], in float32."""

from __future__ import annotations

import numpy as np
import onnx

from llmtrace.schema.rotary import frequencies, gain
from llmtrace.schema.sites import Array
from llmtrace.spec import DynamicNtk, LongRope, Rotary
from llmtrace_onnxruntime.writing import prompt
from llmtrace_onnxruntime.writing.graph import Graph
from llmtrace_onnxruntime.writing.heads import Heads, laid

ENOUGH = 1024
"""Rows of a table for a model that sets no limit to its prompts."""


def turned(graph: Graph, r: Rotary | None, x: Heads, context: int | None) -> Heads:
    """A value of heads, turned; itself without a rotary embedding."""
    if r is None:
        return x
    if graph.style.rotary:
        return _by_operator(graph, r, laid(graph, x, "flat"), context)
    return _by_parts(graph, r, laid(graph, x, "first"))


def tables(graph: Graph, r: Rotary, context: int | None) -> tuple[str, str]:
    """Cosines and sines [position, width / 2], as operators read them: constants, unless the frequencies change with the prompt's length."""
    if isinstance(r.scaling, DynamicNtk | LongRope):
        return _wave(graph, r, "Cos"), _wave(graph, r, "Sin")
    angles = np.arange(context or ENOUGH)[:, None] * frequencies(r, 1)
    return (
        graph.once((r, "cosines"), lambda: graph.vector(gain(r) * np.cos(angles))),
        graph.once((r, "sines"), lambda: graph.vector(gain(r) * np.sin(angles))),
    )


def _by_operator(graph: Graph, r: Rotary, x: Heads, context: int | None) -> Heads:
    cos, sin = tables(graph, r, context)
    attributes = {"num_heads": x.count, "rotary_embedding_dim": r.width, "interleaved": int(r.layout == "interleaved")}
    own = bool(graph.style.rotary.rpartition(".")[0])
    places = prompt.position_ids(graph)
    inputs = (x.name, places, cos, sin) if own else (x.name, cos, sin, places)
    return x.of(graph.op(graph.style.rotary, *inputs, attributes=attributes))


def _by_parts(graph: Graph, r: Rotary, x: Heads) -> Heads:
    """As torch's exporter spells `x * cos + rotate(x) * sin`, on the leading channels, [batch head token d_head]."""
    part = x.name if r.width == x.width else sliced(graph, x.name, 0, r.width)
    cos, sin = _doubled(graph, r, "Cos"), _doubled(graph, r, "Sin")
    y = graph.op("Add", graph.op("Mul", part, cos), graph.op("Mul", _rotated(graph, r, part, x.count), sin))
    if r.width != x.width:
        y = graph.op("Concat", y, sliced(graph, x.name, r.width, x.width), attributes={"axis": -1})
    return x.of(y)


def _rotated(graph: Graph, r: Rotary, x: str, heads: int) -> str:
    """Each pair (a, b) as (-b, a)."""
    if r.layout == "half":
        half = r.width // 2
        minus = graph.op("Neg", sliced(graph, x, half, r.width))
        return graph.op("Concat", minus, sliced(graph, x, 0, half), attributes={"axis": -1})
    minus = graph.op("Neg", sliced(graph, x, 1, r.width, 2))
    pairs = [graph.op("Unsqueeze", each, graph.integers(-1)) for each in (minus, sliced(graph, x, 0, r.width, 2))]
    return graph.reshape(graph.op("Concat", *pairs, attributes={"axis": -1}), 0, heads, -1, r.width)


def _doubled(graph: Graph, r: Rotary, wave: str) -> str:
    """The cosine or sine for each channel, [sequence, width]."""

    def make() -> str:
        one = _wave(graph, r, wave)
        if r.layout == "half":
            return graph.op("Concat", one, one, attributes={"axis": -1})
        pair = graph.op("Unsqueeze", one, graph.integers(-1))
        return graph.reshape(graph.op("Concat", pair, pair, attributes={"axis": -1}), -1, r.width)

    return graph.once((r, wave), make)


def _wave(graph: Graph, r: Rotary, wave: str) -> str:
    """`gain * cos(angles)` or `gain * sin(angles)`."""
    return graph.once(
        (r, wave, "computed"), lambda: graph.down(_scaled(graph, graph.op(wave, _angles(graph, r)), gain(r)))
    )


def _scaled(graph: Graph, x: str, factor: float) -> str:
    return x if factor == 1 else graph.op("Mul", x, graph.number(factor, np.float32))


def _angles(graph: Graph, r: Rotary) -> str:
    def make() -> str:
        places = graph.op("Cast", prompt.positions(graph), attributes={"to": onnx.TensorProto.FLOAT})
        return graph.op("Mul", graph.op("Unsqueeze", places, graph.integers(1)), _frequencies(graph, r))

    return graph.once((r, "angles"), make)


def _frequencies(graph: Graph, r: Rotary) -> str:
    """Radians a position, [width / 2]; with some scalings they follow from the prompt's length."""
    match r.scaling:
        case LongRope(context=context):
            long = graph.op("Greater", prompt.length(graph), graph.number(context, np.int64))
            return graph.op(
                "Where", long, _row(graph, frequencies(r, context + 1)), _row(graph, frequencies(r, context))
            )
        case DynamicNtk(factor, context):
            most = graph.op("Max", prompt.length(graph), graph.number(context, np.int64))
            ratio = graph.op(
                "Mul",
                graph.op("Cast", most, attributes={"to": onnx.TensorProto.FLOAT}),
                graph.number(factor / context, np.float32),
            )
            stretch = graph.op("Sub", ratio, graph.number(factor - 1, np.float32))
            power = -np.arange(0, r.width, 2) / (r.width - 2)
            return graph.op("Mul", _row(graph, frequencies(r, 1)), graph.op("Pow", stretch, _row(graph, power)))
        case _:
            return _row(graph, frequencies(r, 1))


def _row(graph: Graph, array: Array) -> str:
    return graph.constant(array.astype(np.float32))


def sliced(graph: Graph, x: str, start: int, end: int, step: int = 1) -> str:
    """Some of the last axis."""
    bounds = [graph.integers(each) for each in (start, end, -1)]
    return graph.op("Slice", x, *bounds, *([graph.integers(step)] if step != 1 else []))
