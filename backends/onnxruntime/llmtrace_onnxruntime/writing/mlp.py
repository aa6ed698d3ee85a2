"""MLPs, plain and gated."""

from __future__ import annotations

from llmtrace.spec import GatedMlp, Mlp
from llmtrace_onnxruntime.writing.activation import activation, clip
from llmtrace_onnxruntime.writing.graph import Graph


def mlp(graph: Graph, m: Mlp | GatedMlp, x: str, at: str) -> str:
    """`W_out(act(W_in x))`, or `W_out(act(W_gate x) * W_in x)`."""
    if isinstance(m, Mlp):
        post = activation(graph, m.act, graph.linear(x, f"{at}.W_in"))
    else:
        post = gated(graph, m, graph.linear(x, f"{at}.W_gate"), graph.linear(x, f"{at}.W_in"))
    return graph.linear(post, f"{at}.W_out")


def gated(graph: Graph, m: GatedMlp, pre: str, linear: str) -> str:
    """`act(pre) * linear`, after the clamps where the model has them."""
    if m.clamp is not None:
        limit = m.clamp.limit
        pre, linear = clip(graph, pre, None, limit), clip(graph, linear, -limit, limit)
        linear = graph.op("Add", linear, graph.number(m.clamp.offset)) if m.clamp.offset else linear
    return graph.op("Mul", activation(graph, m.act, pre), linear)
