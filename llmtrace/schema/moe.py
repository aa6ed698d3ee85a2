"""Experts: each token's `choices`, in the order of `expert_index`. Weights have a leading expert axis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llmtrace.schema.functions import plus, sigmoid, softmax
from llmtrace.schema.mlp import gated
from llmtrace.schema.sites import Array, WeightRow, site, weights
from llmtrace.spec import Moe


def _biased(axes: str) -> Callable[[Moe], str | None]:
    return lambda m: axes if m.expert.bias else None


def _shared(name: str, axes: str) -> WeightRow:
    return WeightRow(f"shared.{name}", lambda m: axes if m.shared else None)


weights(
    Moe,
    W_router="d_model expert", b_router=lambda m: "expert" if m.router_bias else None,
    b_correction=lambda m: "expert" if m.correction else None,
    W_gate="expert d_model d_mlp", b_gate=_biased("expert d_mlp"),
    W_in="expert d_model d_mlp", b_in=_biased("expert d_mlp"),
    W_out="expert d_mlp d_model", b_out=_biased("expert d_model"),
    W_shared_gate=WeightRow("shared.W_gate", lambda m: "d_model d_shared" if m.shared else None),
    W_shared_in=_shared("W_in", "d_model d_shared"), W_shared_out=_shared("W_out", "d_shared d_model"),
    W_shared_mix=WeightRow("shared.W_mix", lambda m: "d_model 1" if m.shared and m.shared.gated else None),
)  # fmt: skip


def _each(x: Array, index: Array, w: Array, b: Array | None) -> Array:
    """`x[t, c] @ w[index[t, c]] + b[index[t, c]]`, one product an expert: [token choice out]."""
    y = np.zeros(index.shape + w.shape[-1:], x.dtype)
    for expert in np.unique(index):
        here = index == expert
        y[here] = plus(x[here] @ w[expert], None if b is None else b[expert])
    return y


def _fan(x: Array, index: Array) -> Array:
    return np.broadcast_to(x[:, None], index.shape + x.shape[-1:])


@site("token expert", sums="d_model")
def router(m: Moe, x: Array, W_router: Array, b_router: Array | None = None) -> Array:
    """`x @ W_router + b_router`: router logits."""
    return plus(x @ W_router, b_router)


def affinities(m: Moe, router: Array) -> Array:
    """What experts are ranked by, before a correction: all scores, or the logits where the softmax comes after the choice."""
    match m.scoring:
        case "softmax":
            return softmax(router)
        case "sigmoid":
            return sigmoid(router)
        case "topk_softmax":
            return router


def ranking(m: Moe, router: Array, b_correction: Array | None) -> Array:
    """What the choice goes by: affinities, with the correction that counts for the choice only (arXiv 2412.19437, eq. 16)."""
    return plus(affinities(m, router), b_correction)


@site("token choice", integer=True)
def expert_index(m: Moe, router: Array, b_correction: Array | None = None) -> Array:
    """The experts chosen, best first; equal scores by index."""
    return np.argsort(-ranking(m, router, b_correction), axis=-1, kind="stable")[:, : m.choices].astype(np.int64)


@site("token choice")
def router_weights(m: Moe, router: Array, expert_index: Array) -> Array:
    """What each chosen expert's output is multiplied by."""
    chosen = np.take_along_axis(affinities(m, router), expert_index, axis=-1)
    if m.scoring == "topk_softmax":
        chosen = softmax(chosen)
    if m.renormalise:
        chosen = chosen / chosen.sum(-1, keepdims=True)
    return m.scale * chosen


@site("token choice d_mlp", sums="d_model")
def pre(m: Moe, x: Array, expert_index: Array, W_gate: Array, b_gate: Array | None = None) -> Array:
    """`x @ W_gate[expert] + b_gate[expert]`"""
    return _each(_fan(x, expert_index), expert_index, W_gate, b_gate)


@site("token choice d_mlp", sums="d_model")
def pre_linear(m: Moe, x: Array, expert_index: Array, W_in: Array, b_in: Array | None = None) -> Array:
    """`x @ W_in[expert] + b_in[expert]`"""
    return _each(_fan(x, expert_index), expert_index, W_in, b_in)


@site("token choice d_mlp", activation=True)
def post(m: Moe, pre: Array, pre_linear: Array) -> Array:
    """`act(pre) * pre_linear`, after the clamps where the model has them."""
    return gated(m.expert, pre, pre_linear)


@site("token d_model", sums="d_shared", when=lambda m: m.shared is not None)
def shared_out(
    m: Moe, x: Array, W_shared_gate: Array, W_shared_in: Array, W_shared_out: Array, W_shared_mix: Array | None = None
) -> Array:
    """The shared expert's output, times `sigmoid(x @ W_mix)` where it is gated."""
    if m.shared is None:
        raise TypeError("this record has no shared expert")
    y = gated(m.shared.expert, x @ W_shared_gate, x @ W_shared_in) @ W_shared_out
    return y if W_shared_mix is None else sigmoid(x @ W_shared_mix) * y


@site("token d_model", sums="d_mlp choice")
def out(
    m: Moe, post: Array, router_weights: Array, expert_index: Array, W_out: Array, b_out: Array | None = None,
    shared_out: Array | None = None,
) -> Array:  # fmt: skip
    """The experts' outputs, weighted and summed, and the shared expert's."""
    routed = (router_weights[..., None] * _each(post, expert_index, W_out, b_out)).sum(1)
    return plus(routed, shared_out)
