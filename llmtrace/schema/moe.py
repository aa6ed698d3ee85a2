"""Experts: each token's `choices`, in the order of `expert_index`. Weights have a leading expert axis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llmtrace.schema.functions import ACTIVATIONS, plus, sigmoid, softmax
from llmtrace.schema.mlp import gated
from llmtrace.schema.sites import Array, WeightRow, site, weights
from llmtrace.spec import GatedMlp, Groups, Mlp, Moe


def _biased(axes: str) -> Callable[[Moe], str | None]:
    return lambda m: axes if m.expert.bias else None


def is_gated(m: Moe) -> bool:
    """Whether its experts are gated MLPs, and not plain ones."""
    return isinstance(m.expert, GatedMlp)


def _of(kind: type[GatedMlp | Mlp], name: str, axes: str) -> WeightRow:
    """A weight of experts of one kind."""
    biased = name.startswith("b_")
    return WeightRow(name, lambda m: axes if type(m.expert) is kind and (m.expert.bias or not biased) else None)


def _shared(name: str, axes: str, *, gate: bool = False) -> WeightRow:
    """A weight of shared experts; of gated ones only, or of any."""
    return WeightRow(
        f"shared.{name}", lambda m: axes if m.shared and (not gate or isinstance(m.shared.expert, GatedMlp)) else None
    )


weights(
    Moe,
    W_router="d_model expert", b_router=lambda m: "expert" if m.router_bias else None,
    b_correction=lambda m: "expert" if m.correction else None,
    W_gate=_of(GatedMlp, "W_gate", "expert d_model d_mlp"), b_gate=_of(GatedMlp, "b_gate", "expert d_mlp"),
    W_in=_of(GatedMlp, "W_in", "expert d_model d_mlp"), b_in=_of(GatedMlp, "b_in", "expert d_mlp"),
    W_plain=_of(Mlp, "W_in", "expert d_model d_mlp"), b_plain=_of(Mlp, "b_in", "expert d_mlp"),
    W_out="expert d_mlp d_model", b_out=_biased("expert d_model"),
    W_shared_gate=_shared("W_gate", "d_model d_shared", gate=True),
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


def _fan(x: Array, index: Array, expert_in: Array | None) -> Array:
    return np.broadcast_to(x[:, None], index.shape + x.shape[-1:]) if expert_in is None else expert_in


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
        case "topk_softmax" | "topk_sigmoid" | "sparsemixer":
            return router


def ranking(m: Moe, router: Array, b_correction: Array | None) -> Array:
    """What the choice goes by: affinities, with the correction that counts for the choice only (arXiv 2412.19437, eq. 16)."""
    return plus(affinities(m, router), b_correction)


@site("token choice", integer=True)
def expert_index(m: Moe, router: Array, b_correction: Array | None = None) -> Array:
    """The experts chosen, best first, from the best groups where they stand in groups; equal scores by index."""
    ranked = ranking(m, router, b_correction)
    if m.groups is not None:
        ranked = np.where(in_groups(m.groups, ranked), ranked, -np.inf)
    return np.argsort(-ranked, axis=-1, kind="stable")[:, : m.choices].astype(np.int64)


def in_groups(groups: Groups, ranked: Array) -> Array:
    """Which experts stand in a group that may be chosen from, [token expert]."""
    each = np.sort(ranked.reshape(len(ranked), groups.count, -1), axis=-1)[..., -groups.best :].sum(-1)
    chosen = np.argsort(-each, axis=-1, kind="stable")[:, : groups.choices]
    allowed = np.zeros(each.shape, bool)
    np.put_along_axis(allowed, chosen, True, axis=-1)
    return np.repeat(allowed, ranked.shape[1] // groups.count, axis=-1)


@site("token choice")
def router_weights(m: Moe, router: Array, expert_index: Array) -> Array:
    """What each chosen expert's output (or input) is multiplied by."""
    chosen = np.take_along_axis(affinities(m, router), expert_index, axis=-1)
    match m.scoring:
        case "topk_softmax":
            chosen = softmax(chosen)
        case "topk_sigmoid":
            chosen = sigmoid(chosen)
        case "sparsemixer":
            chosen = shares(router, expert_index, m.near)
        case _:
            pass
    if m.renormalise:
        chosen = chosen / (chosen.sum(-1, keepdims=True) + m.eps)
    return m.scale * chosen


def shares(router: Array, index: Array, near: float) -> Array:
    """Each choice's share of a softmax over the logits that come near it, but for those of choices before: [token choice].

    Near is what lies below it by at most `near` times the larger of it and of the other's size (arXiv 2409.12136, as PhiMoE runs it).
    """
    left, found = router.copy(), []
    for place in range(index.shape[1]):
        best = np.take_along_axis(router, index[:, place : place + 1], axis=-1)
        apart = (best - router) / np.maximum(np.abs(router), best)
        found.append(1 / np.exp(np.where(apart > near, -np.inf, left) - best).sum(-1))
        np.put_along_axis(left, index[:, place : place + 1], -np.inf, axis=-1)
    return np.stack(found, axis=-1)


@site("token choice d_model", when=lambda m: m.weighs == "inputs")
def expert_in(m: Moe, x: Array, router_weights: Array) -> Array:
    """`router_weights * x`: what each chosen expert reads, where weights multiply that."""
    return router_weights[..., None] * x[:, None]


@site("token choice d_mlp", sums="d_model")
def pre(
    m: Moe, x: Array, expert_index: Array, W_gate: Array | None = None, b_gate: Array | None = None,
    W_plain: Array | None = None, b_plain: Array | None = None, expert_in: Array | None = None,
) -> Array:  # fmt: skip
    """`x @ W_gate[expert] + b_gate[expert]`; of plain experts `W_in`, `b_in`; of `expert_in` where the model has it."""
    matrix, bias = (W_gate, b_gate) if W_plain is None else (W_plain, b_plain)
    if matrix is None:
        raise TypeError("experts have a first matrix")
    return _each(_fan(x, expert_index, expert_in), expert_index, matrix, bias)


@site("token choice d_mlp", sums="d_model", when=is_gated)
def pre_linear(
    m: Moe, x: Array, expert_index: Array, W_in: Array, b_in: Array | None = None, expert_in: Array | None = None
) -> Array:
    """`x @ W_in[expert] + b_in[expert]`; of `expert_in` where the model has it."""
    return _each(_fan(x, expert_index, expert_in), expert_index, W_in, b_in)


@site("token choice d_mlp", activation=True)
def post(m: Moe, pre: Array, pre_linear: Array | None = None) -> Array:
    """`act(pre) * pre_linear`, after the clamps where the model has them; of plain experts `act(pre)`."""
    return _activated(m.expert, pre, pre_linear)


def _activated(expert: GatedMlp | Mlp, pre: Array, pre_linear: Array | None) -> Array:
    if isinstance(expert, GatedMlp) and pre_linear is not None:
        return gated(expert, pre, pre_linear)
    return ACTIVATIONS[expert.act](pre)


@site("token d_model", sums="d_shared", when=lambda m: m.shared is not None)
def shared_out(
    m: Moe, x: Array, W_shared_in: Array, W_shared_out: Array, W_shared_gate: Array | None = None,
    W_shared_mix: Array | None = None,
) -> Array:  # fmt: skip
    """The shared expert's output, times `sigmoid(x @ W_mix)` where it is gated."""
    if m.shared is None:
        raise TypeError("this record has no shared expert")
    halves = (x @ W_shared_in, None) if W_shared_gate is None else (x @ W_shared_gate, x @ W_shared_in)
    y = _activated(m.shared.expert, *halves) @ W_shared_out
    return y if W_shared_mix is None else sigmoid(x @ W_shared_mix) * y


@site("token d_model", sums="d_mlp choice")
def out(
    m: Moe, post: Array, router_weights: Array, expert_index: Array, W_out: Array, b_out: Array | None = None,
    shared_out: Array | None = None,
) -> Array:  # fmt: skip
    """The experts' outputs, weighted (where their inputs are not) and summed, and the shared expert's."""
    each = _each(post, expert_index, W_out, b_out)
    routed = (router_weights[..., None] * each if m.weighs == "outputs" else each).sum(1)
    return plus(routed, shared_out)
