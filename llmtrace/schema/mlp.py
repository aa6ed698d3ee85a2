"""The MLP, plain and gated. `pre` is what enters the activation, `post` what enters `W_out`."""

from __future__ import annotations

import numpy as np

from llmtrace.schema import norm
from llmtrace.schema.functions import ACTIVATIONS, plus, xielu
from llmtrace.schema.sites import Array, WeightRow, site, weights
from llmtrace.spec import GatedMlp, Mlp


def _inner_norm(part: str) -> WeightRow:
    def axes(m: GatedMlp) -> str | None:
        n = m.inner_norm
        return f"{n.each} {n.over}".strip() if n and (n.weight if part == "w" else n.bias) else None

    return WeightRow(f"inner_norm.{part}", axes)


for _kind in (Mlp, GatedMlp):
    weights(
        _kind,
        W_in="d_model d_mlp", W_out="d_mlp d_model",
        b_in=lambda m: "d_mlp" if m.bias else None, b_out=lambda m: "d_model" if m.bias else None,
    )  # fmt: skip
weights(
    GatedMlp, W_gate="d_model d_mlp", b_gate=lambda m: "d_mlp" if m.bias else None,
    inner_norm_w=_inner_norm("w"), inner_norm_b=_inner_norm("b"),
)  # fmt: skip


def _number(m: Mlp) -> str | None:
    return "1" if m.act == "xielu" else None


weights(Mlp, alpha_p=_number, alpha_n=_number, beta=_number, eps=_number)


def gated(m: GatedMlp, pre: Array, pre_linear: Array) -> Array:
    """`act(pre) * pre_linear`; GPT-OSS clamps both halves first (`pre` from above only) and adds one to the linear half."""
    if m.clamp is None:
        return ACTIVATIONS[m.act](pre) * pre_linear
    limit = m.clamp.limit
    return ACTIVATIONS[m.act](np.minimum(pre, limit)) * (np.clip(pre_linear, -limit, limit) + m.clamp.offset)


@site("token d_mlp", name="pre", sums="d_model")
def plain_pre(m: Mlp, x: Array, W_in: Array, b_in: Array | None = None) -> Array:
    """`x @ W_in + b_in`"""
    return plus(x @ W_in, b_in)


@site("token d_mlp", name="pre", sums="d_model")
def gated_pre(m: GatedMlp, x: Array, W_gate: Array, b_gate: Array | None = None) -> Array:
    """`x @ W_gate + b_gate`"""
    return plus(x @ W_gate, b_gate)


@site("token d_mlp", sums="d_model")
def pre_linear(m: GatedMlp, x: Array, W_in: Array, b_in: Array | None = None) -> Array:
    """`x @ W_in + b_in`: the linear half."""
    return plus(x @ W_in, b_in)


@site("token d_mlp", name="post", activation=True)
def plain_post(
    m: Mlp, pre: Array, alpha_p: Array | None = None, alpha_n: Array | None = None, beta: Array | None = None,
    eps: Array | None = None,
) -> Array:  # fmt: skip
    """`act(pre)`, with its four numbers where it is xIELU."""
    if alpha_p is None or alpha_n is None or beta is None or eps is None:
        return ACTIVATIONS[m.act](pre)
    return xielu(pre, alpha_p, alpha_n, beta, eps)


@site("token d_mlp", name="post", activation=True)
def gated_post(
    m: GatedMlp, pre: Array, pre_linear: Array, inner_norm_w: Array | None = None, inner_norm_b: Array | None = None
) -> Array:
    """`act(pre) * pre_linear`, after the clamps and before the norm where the model has them."""
    return norm.apply(m.inner_norm, gated(m, pre, pre_linear), inner_norm_w, inner_norm_b)


@site("token d_model", sums="d_mlp")
def out(m: Mlp | GatedMlp, post: Array, W_out: Array, b_out: Array | None = None) -> Array:
    """`post @ W_out + b_out`: the module's output, before post-norm and multiplier."""
    return plus(post @ W_out, b_out)
