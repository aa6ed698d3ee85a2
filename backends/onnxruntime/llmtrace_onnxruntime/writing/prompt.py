"""What depends on the prompt and not on its tokens: how long it is, positions, and which keys a query may see."""

from __future__ import annotations

import numpy as np
import onnx

from llmtrace_onnxruntime.writing.graph import Graph

IDS, PADDING, LOGITS = "input_ids", "attention_mask", "logits"
"""Inputs [batch, sequence] and output [batch, sequence, vocab] of every graph."""


def length(graph: Graph) -> str:
    """How many tokens: one whole number."""
    return graph.once("length", lambda: graph.op("Gather", graph.op("Shape", IDS), graph.number(1, np.int64)))


def positions(graph: Graph) -> str:
    """0, 1, …: [sequence]."""
    return graph.once(
        "positions",
        lambda: graph.op("Range", graph.number(0, np.int64), length(graph), graph.number(1, np.int64)),
    )


def position_ids(graph: Graph) -> str:
    """Of every prompt, [batch, sequence]."""
    return graph.once("position ids", lambda: graph.op("Expand", _row(graph), graph.op("Shape", IDS)))


def _row(graph: Graph) -> str:
    return graph.once("row", lambda: graph.op("Unsqueeze", positions(graph), graph.integers(0)))


def _column(graph: Graph) -> str:
    return graph.once("column", lambda: graph.op("Unsqueeze", positions(graph), graph.integers(1)))


def _seen(graph: Graph, window: int | None) -> str:
    """Whether a query sees a key: not after it, not beyond the window, no padding. [batch 1 query key]"""
    seen = graph.op("LessOrEqual", _row(graph), _column(graph))
    if window is not None:
        first = graph.op("Sub", _column(graph), graph.number(window, np.int64))
        seen = graph.op("And", seen, graph.op("Greater", _row(graph), first))
    real = graph.op("Cast", PADDING, attributes={"to": onnx.TensorProto.BOOL})
    return graph.op("And", seen, graph.op("Unsqueeze", real, graph.integers(1, 2)))


def mask(graph: Graph, window: int | None) -> str:
    """What is added to scores: nothing, or the lowest number that there is. [batch 1 query key]"""
    lowest = float(np.finfo(graph.dtype.type).min)
    return graph.once(
        ("mask", window),
        lambda: graph.op("Where", _seen(graph, window), graph.number(0.0), graph.number(lowest)),
    )


def alibi(graph: Graph, slopes: tuple[float, ...]) -> str:
    """`slope * (key - query)`, [1 head query key]."""

    def make() -> str:
        away = graph.op("Cast", graph.op("Sub", _row(graph), _column(graph)), attributes={"to": onnx.TensorProto.FLOAT})
        steep = graph.constant(np.asarray(slopes, np.float32)[None, :, None, None])
        return graph.down(graph.op("Mul", steep, away))

    return graph.once(("alibi", slopes), make)
