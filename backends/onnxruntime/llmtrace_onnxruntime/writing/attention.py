"""Attention, from what its matrices read to its output."""

from __future__ import annotations

from llmtrace.spec import Attention
from llmtrace_onnxruntime.writing.activation import activation, clip
from llmtrace_onnxruntime.writing.cores import CORES, turns_itself
from llmtrace_onnxruntime.writing.graph import Graph, bias_of
from llmtrace_onnxruntime.writing.heads import Heads, head_norm, laid
from llmtrace_onnxruntime.writing.rotary import turned


def attention(graph: Graph, a: Attention, x: str, at: str, context: int | None) -> str:
    """`W_O(gate * norm(pattern @ v))`, [batch token d_model]."""
    core = CORES[graph.style.attention]
    if _packs(graph, a, at):
        width = a.heads + 2 * a.kv_heads
        packed = Heads(graph.linear(x, *(f"{at}.W_{each}" for each in "QKV")), width, a.d_head)
        z = core(graph, a, packed, None, None, at, context)
    else:
        q, k = (_made(graph, a, x, at, which, context) for which in "QK")
        v = head_norm(graph, a.v_norm, _projected(graph, a, x, at, "V"), f"{at}.v_norm")
        z = core(graph, a, q, k, v, at, context)
    z = head_norm(graph, a.z_norm, z, f"{at}.z_norm")
    return graph.linear(_gated(graph, a, laid(graph, z, "flat"), x, at), f"{at}.W_O")


def _packs(graph: Graph, a: Attention, at: str) -> bool:
    """Whether q, k and v are one product, which the core takes as it is."""
    biased = {bias_of(f"{at}.W_{each}") in graph.weights for each in "QKV"}
    between = (a.clip, a.q_norm, a.k_norm, a.v_norm)
    alike = len(biased) == 1 and a.d_value == a.d_head
    return turns_itself(graph, a) and alike and all(each is None for each in between)


def _projected(graph: Graph, a: Attention, x: str, at: str, which: str) -> Heads:
    """`clip(x @ W + b)`"""
    y = graph.linear(x, f"{at}.W_{which}")
    y = y if a.clip is None else clip(graph, y, -a.clip, a.clip)
    return Heads(y, a.heads if which == "Q" else a.kv_heads, a.d_value if which == "V" else a.d_head)


def _made(graph: Graph, a: Attention, x: str, at: str, which: str, context: int | None) -> Heads:
    """q or k, normed and turned in the model's order, unless the core turns it."""
    y = _projected(graph, a, x, at, which)
    n, place = (a.q_norm if which == "Q" else a.k_norm), f"{at}.{which.lower()}_norm"
    if not a.norm_after_rotary:
        y = head_norm(graph, n, y, place)
    if not turns_itself(graph, a):
        y = turned(graph, a.rotary, y, context)
    return head_norm(graph, n, y, place) if a.norm_after_rotary else y


def _gated(graph: Graph, a: Attention, z: Heads, x: str, at: str) -> str:
    if a.gate is None:
        return z.name
    factor = activation(graph, a.gate.act, graph.linear(x, f"{at}.W_gate"))
    if not a.gate.per_head:
        return graph.op("Mul", z.name, factor)
    apart = laid(graph, z, "apart")
    one = graph.reshape(factor, 0, 0, a.heads, 1)
    return laid(graph, apart.of(graph.op("Mul", apart.name, one)), "flat").name
