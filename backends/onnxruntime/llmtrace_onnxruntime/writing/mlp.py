"""MLPs, plain and gated."""

from __future__ import annotations

from llmtrace.spec import GatedMlp, Mlp
from llmtrace_onnxruntime.writing.activation import activation, clip
from llmtrace_onnxruntime.writing.graph import Graph
from llmtrace_onnxruntime.writing.norm import norm


def mlp(graph: Graph, m: Mlp | GatedMlp, x: str, at: str) -> str:
    """`W_out(act(W_in x))`, or `W_out(norm(act(W_gate x) * W_in x))`."""
    if isinstance(m, Mlp):
        pre = graph.linear(x, f"{at}.W_in")
        post = _xielu(graph, pre, at) if m.act == "xielu" else activation(graph, m.act, pre)
    else:
        post = gated(graph, m, graph.linear(x, f"{at}.W_gate"), graph.linear(x, f"{at}.W_in"))
        if m.inner_norm is not None:
            post = norm(graph, m.inner_norm, post, f"{at}.inner_norm", m.d_mlp)
    return graph.linear(post, f"{at}.W_out")


def _xielu(graph: Graph, x: str, at: str) -> str:
    alpha_p, alpha_n, beta, eps = (graph.weight(f"{at}.{name}") for name in ("alpha_p", "alpha_n", "beta", "eps"))
    above = graph.op("Mul", graph.op("Mul", alpha_p, x), x)
    curve = graph.op("Sub", graph.op("Exp", graph.op("Min", x, eps)), graph.number(1.0))
    below = graph.op("Mul", alpha_n, graph.op("Sub", curve, x))
    bent = graph.op("Where", graph.op("Greater", x, graph.number(0.0)), above, below)
    return graph.op("Add", bent, graph.op("Mul", beta, x))


def gated(graph: Graph, m: GatedMlp, pre: str, linear: str) -> str:
    """`act(pre) * linear`, after the clamps where the model has them."""
    if m.clamp is not None:
        limit = m.clamp.limit
        pre, linear = clip(graph, pre, None, limit), clip(graph, linear, -limit, limit)
        linear = graph.op("Add", linear, graph.number(m.clamp.offset)) if m.clamp.offset else linear
    return graph.op("Mul", activation(graph, m.act, pre), linear)
