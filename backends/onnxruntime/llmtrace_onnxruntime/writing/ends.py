"""From tokens into the stream, and from the stream to logits."""

from __future__ import annotations

import numpy as np

from llmtrace.spec import ModelSpec
from llmtrace_onnxruntime.writing import prompt
from llmtrace_onnxruntime.writing.activation import activation, scaled, softcap
from llmtrace_onnxruntime.writing.blocks import BITS, BLOCK, levels, packed
from llmtrace_onnxruntime.writing.graph import Graph
from llmtrace_onnxruntime.writing.norm import norm
from llmtrace_onnxruntime.writing.stream import Point, block
from llmtrace_onnxruntime.writing.style import MICROSOFT

TABLE, OUT = "embed.W_E", "unembed.W_U"


def model(graph: Graph, spec: ModelSpec) -> None:
    """All of a model: nodes from `input_ids` to `logits`."""
    stream = _embedded(graph, spec)
    for layer, each in enumerate(spec.blocks):
        stream = block(graph, each, stream, f"blocks.{layer}.", spec.context)
    x = stream.normed(spec.ln_final, "ln_final")
    if spec.head is not None:
        x = activation(graph, spec.head.act, graph.linear(x, "head.W_in"))
        x = x if spec.head.norm is None else norm(graph, spec.head.norm, x, "head_norm", spec.d_model)
    graph.rename(_logits(graph, spec, x), prompt.LOGITS)


def _embedded(graph: Graph, spec: ModelSpec) -> Point:
    """`norm(scale * W_E[tokens])`, and learned positions."""
    x = scaled(graph, _looked_up(graph), spec.embed.scale)
    if spec.embed.norm is not None:
        x = norm(graph, spec.embed.norm, x, "embed", spec.d_model)
    if spec.positions is None:
        return Point(graph, spec.d_model, x)
    places = graph.op("Unsqueeze", prompt.positions(graph), graph.integers(0))
    if spec.positions.offset:
        places = graph.op("Add", places, graph.number(spec.positions.offset, np.int64))
    return Point(graph, spec.d_model, x, graph.op("Gather", graph.weight("pos_embed.W_pos"), places))


def _looked_up(graph: Graph) -> str:
    if graph.kind != "int4":
        return graph.op("Gather", graph.weight(TABLE), prompt.IDS)
    blocks, scales = _table(graph)
    rows = graph.reshape(
        blocks, 0, -1
    )  # as the builder of ONNX Runtime has it, so that a tied head can read the same blocks
    attributes = {"bits": BITS, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1}
    return graph.op(f"{MICROSOFT}.GatherBlockQuantized", rows, prompt.IDS, scales, attributes=attributes)


def _table(graph: Graph) -> tuple[str, str]:
    """The embedding's blocks and scales."""
    found, scales = levels(graph.weights.matrix(TABLE))
    return (
        graph.once("table", lambda: graph.constant(packed(found))),
        graph.once("scales", lambda: graph.constant(scales)),
    )


def _logits(graph: Graph, spec: ModelSpec, x: str) -> str:
    """`softcap(scale * (x @ W_U + b_U))`"""
    u = spec.unembed
    if not u.tied:
        y = graph.linear(x, OUT)
    elif graph.kind == "int4":
        y = graph.by_blocks(x, (spec.d_model, spec.vocab), *_table(graph))
    else:
        y = graph.op("MatMul", x, graph.op("Transpose", graph.weight(TABLE), attributes={"perm": [1, 0]}))
    if u.tied and u.bias:
        y = graph.op("Add", y, graph.weight("unembed.b_U"))
    return softcap(graph, scaled(graph, y, u.scale), u.softcap)
