"""**Core**: from q, k and v to z, each query's mixture of values. Put together of standard operators, or one operator.

An operator that cannot say a feature of the model is refused by name: a graph that computes something else is worse than none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import onnx

from llmtrace.errors import UnsupportedModelError
from llmtrace.spec import Attention
from llmtrace_onnxruntime.writing import prompt
from llmtrace_onnxruntime.writing.activation import softcap
from llmtrace_onnxruntime.writing.graph import Graph
from llmtrace_onnxruntime.writing.heads import Heads, laid
from llmtrace_onnxruntime.writing.rotary import sliced, tables
from llmtrace_onnxruntime.writing.style import MICROSOFT

Core: TypeAlias = Callable[[Graph, Attention, Heads, Heads | None, Heads | None, str, int | None], Heads]
"""Of graph, record, q (or q, k, v in one), k, v, the attention's address and the model's context."""
GROUPED, MULTIHEAD = f"{MICROSOFT}.GroupQueryAttention", f"{MICROSOFT}.MultiHeadAttention"

GRAIN, FINE = 16, 8
"""GroupQueryAttention has heads of a multiple of the second, and of the first where it turns q and k itself, of which it then turns as many."""


def turns_itself(graph: Graph, a: Attention) -> bool:
    """Whether the core applies the rotary embedding to what it reads, where there is one."""
    fits = a.rotary is None or a.d_head % GRAIN == a.rotary.width % GRAIN == 0
    return graph.style.attention == GROUPED and not a.norm_after_rotary and fits


def by_parts(
    graph: Graph, a: Attention, q: Heads, k: Heads | None, v: Heads | None, at: str, context: int | None
) -> Heads:
    """Eager attention, as transformers has it."""
    q, k, v = _first(graph, a, q, k, v)
    product = graph.op("MatMul", q.name, graph.op("Transpose", k.name, attributes={"perm": [0, 1, 3, 2]}))
    scores = softcap(graph, graph.op("Mul", product, graph.number(a.scale)), a.softcap)
    scores = graph.op("Add", scores, prompt.alibi(graph, a.slopes)) if a.slopes else scores
    scores = graph.op("Add", scores, prompt.mask(graph, a.window))
    if a.sinks:
        pattern = _with_sinks(graph, scores, f"{at}.sinks")
    else:
        pattern = graph.down(graph.op("Softmax", graph.up(scores), attributes={"axis": -1}))
    return Heads(graph.op("MatMul", pattern, v.name), a.heads, a.d_value, "first")


def _first(graph: Graph, a: Attention, q: Heads, k: Heads | None, v: Heads | None) -> tuple[Heads, Heads, Heads]:
    """[batch head token d], keys and values once for every query head."""
    assert k is not None and v is not None  # noqa: S101, PT018  only the grouped core packs
    return laid(graph, q, "first"), _repeated(graph, a, k), _repeated(graph, a, v)


def _repeated(graph: Graph, a: Attention, x: Heads) -> Heads:
    x, group = laid(graph, x, "first"), a.heads // a.kv_heads
    if group == 1:
        return x
    each = graph.op("Unsqueeze", x.name, graph.integers(2))
    spread = graph.op("Expand", each, graph.integers(1, 1, group, 1, 1))
    return Heads(graph.reshape(spread, 0, a.heads, -1, x.width), a.heads, x.width, "first")


def _with_sinks(graph: Graph, scores: str, name: str) -> str:
    """Softmax with each head's sink as a last key, which is then left out (GPT-OSS)."""
    count = graph.weights[name].size
    rows = graph.op("Slice", graph.op("Shape", scores), graph.integers(0), graph.integers(3))
    shape = graph.op("Concat", rows, graph.integers(1), attributes={"axis": 0})
    column = graph.op("Expand", graph.vector(graph.weights[name].reshape(1, count, 1, 1)), shape)
    both = graph.up(graph.op("Concat", scores, column, attributes={"axis": -1}))
    pattern = graph.down(graph.op("Softmax", both, attributes={"axis": -1}))
    return sliced(graph, pattern, 0, -1)


def grouped(
    graph: Graph, a: Attention, q: Heads, k: Heads | None, v: Heads | None, at: str, context: int | None
) -> Heads:
    """GroupQueryAttention: it turns, caps, slides and sinks; biases are added to its scores."""
    if a.d_head % FINE:
        raise _refused(GROUPED, f"heads of {a.d_head} channels, which are no multiple of {FINE}")
    if a.d_value != a.d_head:
        raise _refused(GROUPED, f"values of {a.d_value} channels beside queries of {a.d_head}")
    rotary = a.rotary if turns_itself(graph, a) else None
    cos, sin = tables(graph, rotary, context) if rotary else ("", "")
    attributes = {
        "num_heads": a.heads, "kv_num_heads": a.kv_heads, "scale": a.scale, "softcap": a.softcap or 0.0,
        "local_window_size": a.window or -1, "do_rotary": int(bool(rotary)),
        "rotary_interleaved": int(rotary is not None and rotary.layout == "interleaved"),
    }  # fmt: skip
    bias = prompt.alibi(graph, a.slopes) if a.slopes else ""
    sinks = graph.weight(f"{at}.sinks") if a.sinks else ""
    read = [laid(graph, each, "flat").name if each else "" for each in (q, k, v)]
    inputs = (*read, "", "", *_lengths(graph), cos, sin, "", bias, sinks)
    return Heads(graph.op(GROUPED, *inputs, attributes=attributes), a.heads, a.d_value)


def _lengths(graph: Graph) -> tuple[str, str]:
    """The last position of every prompt [batch], and how many there are."""
    to = {"to": onnx.TensorProto.INT32}

    def last() -> str:
        total = graph.op("ReduceSum", prompt.PADDING, graph.integers(1), attributes={"keepdims": 0})
        return graph.op("Cast", graph.op("Sub", total, graph.number(1, np.int64)), attributes=to)

    return graph.once("last", last), graph.once("total", lambda: graph.op("Cast", prompt.length(graph), attributes=to))


def multihead(
    graph: Graph, a: Attention, q: Heads, k: Heads | None, v: Heads | None, at: str, context: int | None
) -> Heads:
    """MultiHeadAttention: a head of keys and values for every head of queries; masks and biases are added to its scores."""
    _no_sinks(MULTIHEAD, a)
    if a.softcap is not None:
        raise _refused(MULTIHEAD, "a soft cap of scores")
    read = [laid(graph, each, "flat").name for each in _first_or_flat(graph, a, q, k, v)]
    bias = prompt.mask(graph, a.window)
    bias = graph.op("Add", bias, prompt.alibi(graph, a.slopes)) if a.slopes else bias
    attributes = {"num_heads": a.heads, "scale": a.scale}
    return Heads(graph.op(MULTIHEAD, *read, "", "", bias, attributes=attributes), a.heads, a.d_value)


def _first_or_flat(
    graph: Graph, a: Attention, q: Heads, k: Heads | None, v: Heads | None
) -> tuple[Heads, Heads, Heads]:
    """As they are, where no head is repeated."""
    return _first(graph, a, q, k, v) if k is None or v is None or a.heads != a.kv_heads else (q, k, v)


def standard(
    graph: Graph, a: Attention, q: Heads, k: Heads | None, v: Heads | None, at: str, context: int | None
) -> Heads:
    """ONNX's own Attention, of opset 23: it shares keys and values, and caps."""
    _no_sinks("Attention", a)
    assert k is not None and v is not None  # noqa: S101, PT018  only the grouped core packs
    bias = prompt.mask(graph, a.window)
    bias = graph.op("Add", bias, prompt.alibi(graph, a.slopes)) if a.slopes else bias
    attributes = {
        "q_num_heads": a.heads, "kv_num_heads": a.kv_heads, "scale": a.scale, "softcap": a.softcap or 0.0,
    }  # fmt: skip
    read = [laid(graph, each, "flat").name for each in (q, k, v)]
    return Heads(graph.op("Attention", *read, bias, attributes=attributes), a.heads, a.d_value)


def _no_sinks(operator: str, a: Attention) -> None:
    if a.sinks:
        raise _refused(operator, "sinks")


def _refused(operator: str, what: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{operator.rpartition('.')[2]} cannot say {what}: write the model in the style plain."
    )


CORES: Mapping[str, Core] = {"": by_parts, GROUPED: grouped, MULTIHEAD: multihead, "Attention": standard}
"""By the operator of a style."""
