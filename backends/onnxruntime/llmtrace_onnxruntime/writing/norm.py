"""Norms, of the last axis or of several that stand in one."""

from __future__ import annotations

import numpy as np

from llmtrace.spec import Norm
from llmtrace_onnxruntime.writing.graph import Graph
from llmtrace_onnxruntime.writing.style import MICROSOFT


def norm(graph: Graph, n: Norm, x: str, at: str, width: int, *, heads_first: bool = False) -> str:
    """`x / rms(x) * w + b`, the mean over the last `width` channels. `heads_first`: the axis of tokens stands between heads and channels."""
    weight = _vector(graph, f"{at}.w", n, heads_first=heads_first)
    bias = _vector(graph, f"{at}.b", n, heads_first=heads_first)
    named = bool(graph.style.rms)
    if not n.centred and not named:
        y = _by_parts(graph, n, x)
        return _affine(graph, y, weight, bias)
    inside = weight if weight and not n.each else graph.once(("ones", width), lambda: graph.vector(np.ones(width)))
    attributes = {"axis": -1, "epsilon": n.eps, "stash_type": 1}
    if n.centred:
        shift = bias if inside is weight else ""
        y = graph.op("LayerNormalization", x, inside, shift, attributes=attributes)
    else:
        shift, y = "", graph.op(graph.style.rms, x, inside, attributes=attributes)
    return _affine(graph, y, "" if inside is weight else weight, "" if shift else bias)


def skip_norm(graph: Graph, n: Norm, terms: tuple[str, str], at: str, width: int) -> tuple[str, str]:
    """The sum of two values and its norm, by one node: (normed, sum)."""
    ones = graph.once(("ones", width), lambda: graph.vector(np.ones(width)))
    weight = graph.weight(f"{at}.w") if f"{at}.w" in graph.weights else ones
    bias = graph.weight(f"{at}.b") if f"{at}.b" in graph.weights else ""
    name = "SkipLayerNormalization" if n.centred else "SkipSimplifiedLayerNormalization"
    inputs = (*terms, weight, bias) if n.centred else (*terms, weight)
    y, total = graph.ops(f"{MICROSOFT}.{name}", *inputs, places=(0, 3), attributes={"epsilon": n.eps})
    return _affine(graph, y, "", "" if n.centred else bias), total


def _by_parts(graph: Graph, n: Norm, x: str) -> str:
    """`x / sqrt(mean(x²) + eps)` in float32, as torch's exporter writes it."""
    wide = graph.up(x)
    square = graph.op("Pow", wide, graph.number(2.0, np.float32))
    mean = graph.op("ReduceMean", square, attributes={"axes": [-1], "keepdims": 1})
    root = graph.op("Sqrt", graph.op("Add", mean, graph.number(n.eps, np.float32)))
    inverse = graph.op("Div", graph.number(1.0, np.float32), root)
    return graph.down(graph.op("Mul", wide, inverse))


def _vector(graph: Graph, name: str, n: Norm, *, heads_first: bool) -> str:
    """A weight or bias as it stands beside the channels; empty where there is none."""
    if name not in graph.weights:
        return ""
    array = graph.weights[name]
    if n.each:
        return graph.vector(array[:, None] if heads_first else array)
    return graph.vector(array.reshape(-1))


def _affine(graph: Graph, x: str, weight: str, bias: str) -> str:
    y = graph.op("Mul", weight, x) if weight else x
    return graph.op("Add", y, bias) if bias else y
