"""Mixtures of experts. **Dense**: every expert computes every token, and the router's weights, nought for those not chosen, mix them."""

from __future__ import annotations

from llmtrace.errors import UnsupportedModelError
from llmtrace.spec import GatedMlp, Moe
from llmtrace_onnxruntime.writing.activation import activation, scaled
from llmtrace_onnxruntime.writing.graph import Graph
from llmtrace_onnxruntime.writing.mlp import gated, mlp
from llmtrace_onnxruntime.writing.operator_moe import by_operator

LAST = {"axis": -1}


def moe(graph: Graph, m: Moe, x: str, at: str, d_model: int) -> str:
    """The experts' outputs, weighted and summed, and the shared expert's, [batch token d_model]."""
    rows = graph.reshape(x, -1, d_model)
    logits = graph.linear(rows, f"{at}.W_router")
    routed = by_operator(graph, m, rows, logits, at) if graph.style.experts else _dense(graph, m, rows, logits, at)
    y = graph.op("Reshape", routed, graph.op("Shape", x))
    if m.shared is None:
        return y
    shared = mlp(graph, m.shared.expert, x, f"{at}.shared")
    if m.shared.gated:
        shared = graph.op("Mul", graph.op("Sigmoid", graph.linear(x, f"{at}.shared.W_mix")), shared)
    return graph.op("Add", y, shared)


def _dense(graph: Graph, m: Moe, rows: str, logits: str, at: str) -> str:
    weights, index = _choice(graph, m, logits, at)
    zeros = graph.op("Expand", graph.number(0.0), graph.op("Shape", logits))
    every = graph.op("ScatterElements", zeros, index, weights, attributes=LAST)
    by_expert = graph.op("Unsqueeze", graph.op("Transpose", every, attributes={"perm": [1, 0]}), graph.integers(-1))
    if m.weighs == "inputs":
        rows = _weighed(graph, m, rows, by_expert)
    if isinstance(m.expert, GatedMlp):
        post = gated(graph, m.expert, graph.each(rows, f"{at}.W_gate"), graph.each(rows, f"{at}.W_in"))
    else:
        post = activation(graph, m.expert.act, graph.each(rows, f"{at}.W_in"))
    made = graph.each(post, f"{at}.W_out")
    weighted = made if m.weighs == "inputs" else graph.op("Mul", made, by_expert)
    return graph.op("ReduceSum", weighted, graph.integers(0), attributes={"keepdims": 0})


def _weighed(graph: Graph, m: Moe, rows: str, by_expert: str) -> str:
    """What each expert reads; those that are not chosen read nought, and must make nought of it."""
    if (
        graph.kind == "int4"
        or m.expert.bias
        or (not isinstance(m.expert, GatedMlp) and m.expert.act in ("sigmoid", "softplus", "laplace"))
    ):
        raise UnsupportedModelError(
            "Experts of which weights multiply what they read are not written with biases, or in int4."
        )
    return graph.op("Mul", rows, by_expert)


def _choice(graph: Graph, m: Moe, logits: str, at: str) -> tuple[str, str]:
    """Each token's weights and experts, [token choice]. Raises `UnsupportedModelError` for what is not written."""
    if m.groups is not None:
        raise UnsupportedModelError("Experts that are chosen from groups are not written.")
    match m.scoring:
        case "softmax":
            scores = graph.down(graph.op("Softmax", graph.up(logits), attributes=LAST))
        case "sigmoid":
            scores = graph.op("Sigmoid", logits)
        case "topk_softmax" | "topk_sigmoid":
            scores = logits
        case "sparsemixer":
            raise UnsupportedModelError("A router that is a sparse mixer is not written.")
    corrected = graph.op("Add", scores, graph.weight(f"{at}.b_correction")) if m.correction else scores
    chosen, index = graph.ops("TopK", corrected, graph.integers(m.choices), places=(0, 1), attributes=LAST)
    if m.correction:
        chosen = graph.op("GatherElements", scores, index, attributes=LAST)
    if m.scoring == "topk_softmax":
        chosen = graph.down(graph.op("Softmax", graph.up(chosen), attributes=LAST))
    if m.scoring == "topk_sigmoid":
        chosen = graph.op("Sigmoid", chosen)
    if m.renormalise:
        total = graph.op("ReduceSum", chosen, graph.integers(-1), attributes={"keepdims": 1})
        total = graph.op("Add", total, graph.number(m.eps)) if m.eps else total
        chosen = graph.op("Div", chosen, total)
    return scaled(graph, chosen, m.scale), index
