"""A mixture of experts as ONNX Runtime's one operator, which takes the router's logits. Choice and weights then are no values of the graph."""

from __future__ import annotations

import numpy as np

from llmtrace.errors import UnsupportedModelError
from llmtrace.schema.sites import Array
from llmtrace.spec import GatedMlp, Moe
from llmtrace_onnxruntime.writing.activation import scaled
from llmtrace_onnxruntime.writing.graph import Graph
from llmtrace_onnxruntime.writing.style import Attributes

ALPHA = {"silu": 1.0, "quick_gelu": 1.702}
"""Activations of which the operator's SwiGLU is made: `x * sigmoid(alpha * x)`."""


def by_operator(graph: Graph, m: Moe, rows: str, logits: str, at: str) -> str:
    """Every token's mixture, [token d_model]. Raises `UnsupportedModelError` for what the operator cannot say."""
    if lacking := _lacking(graph, m):
        raise UnsupportedModelError(f"MoE cannot say {lacking}: write the model in the style plain.")
    first = _interleaved(graph.weights[f"{at}.W_gate"].swapaxes(1, 2), graph.weights[f"{at}.W_in"].swapaxes(1, 2))
    last = graph.weights[f"{at}.W_out"].swapaxes(1, 2)
    biases: tuple[str, ...] = ("", "")
    if m.expert.bias:
        both = _interleaved(graph.weights[f"{at}.b_gate"], graph.weights[f"{at}.b_in"])
        biases = graph.vector(both), graph.weight(f"{at}.b_out")
    clamp = m.expert.clamp if isinstance(m.expert, GatedMlp) else None
    attributes: Attributes = {
        "k": m.choices, "activation_type": "swiglu", "swiglu_fusion": 1, "activation_alpha": ALPHA[m.expert.act],
        "activation_beta": clamp.offset if clamp else 0.0, "normalize_routing_weights": int(_normalises(m)),
        **({"swiglu_limit": clamp.limit} if clamp else {}),
    }  # fmt: skip
    inputs = (rows, logits, graph.vector(first), biases[0], graph.vector(last), biases[1])
    return scaled(graph, graph.op(graph.style.experts, *inputs, attributes=attributes), m.scale)


def _normalises(m: Moe) -> bool:
    """Whether the chosen weights sum to one: a softmax over the chosen is one over all, divided by the sum."""
    return m.renormalise or m.scoring == "topk_softmax"


def _lacking(graph: Graph, m: Moe) -> str:
    if m.scoring not in ("softmax", "topk_softmax"):
        return "scores by a sigmoid" if "sigmoid" in m.scoring else "a sparse mixer"
    if m.correction:
        return "a correction of the choice"
    if m.groups is not None:
        return "groups of experts"
    if m.eps:
        return "something added to the sum of weights"
    if m.weighs == "inputs":
        return "weights that multiply what experts read"
    if not isinstance(m.expert, GatedMlp):
        return "experts that are not gated"
    if m.expert.act not in ALPHA:
        return f"experts of {m.expert.act}"
    return "experts of int4" if graph.kind == "int4" else ""


def _interleaved(first: Array, second: Array) -> Array:
    """[expert a b a b … (in)] of two [expert d_mlp (in)]."""
    return np.stack([first, second], axis=2).reshape(len(first), -1, *first.shape[2:])
