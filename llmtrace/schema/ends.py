"""The ends of the stream and what enters it between: embeddings, sums, contributions, logits. Each part is itself the site."""

from __future__ import annotations

import numpy as np

from llmtrace.errors import SignalUnavailableError
from llmtrace.schema import norm
from llmtrace.schema.functions import ACTIVATIONS, plus, softcap
from llmtrace.schema.sites import Array, site, weights
from llmtrace.spec import Branch, Carry, Embedding, Head, Mixer, Positions, Sum, Unembedding

weights(
    Embedding,
    W_E="vocab d_model",
    w=lambda e: "d_model" if e.norm and e.norm.weight else None,
    b=lambda e: "d_model" if e.norm and e.norm.bias else None,
)
weights(Positions, W_pos="position d_model")
weights(Unembedding, W_U="d_model vocab", b_U=lambda u: "vocab" if u.bias else None)


@site("token d_model", name="")
def embed(e: Embedding, tokens: Array, W_E: Array, w: Array | None = None, b: Array | None = None) -> Array:
    """`norm(scale * W_E[tokens])`: what enters the stream from the tokens; the norm only where the model has one."""
    return norm.apply(e.norm, e.scale * W_E[tokens], w, b)


@site("token d_model", name="")
def pos_embed(p: Positions, positions: Array, W_pos: Array) -> Array:
    """`W_pos[positions]`: what enters the stream from learned positions."""
    return np.asarray(W_pos[positions + p.offset])


weights(Sum, w=lambda s: "d_model" if s.carry.weight else None, b=lambda s: "d_model" if s.carry.bias else None)


@site("token d_model", name="")
def stream(point: Sum, *terms: Array, w: Array | None = None, b: Array | None = None) -> Array:
    """`scale` times the sum of what flows in: the one residual equation. The first term is carried on: `carry.scale * w * (x + b)`."""
    return point.scale * sum(terms[1:], start=carried(point.carry, terms[0], w, b))


def carried(carry: Carry, x: Array, w: Array | None = None, b: Array | None = None) -> Array:
    """What of the stream goes on."""
    x = plus(x, b) if w is None else w * plus(x, b)
    return x if carry.scale == 1 else carry.scale * x


weights(Branch, w=lambda b: "d_model" if b.weight else None)


@site("token d_model", name="")
def contribution(branch: Branch, x: Array, w: Array | None = None) -> Array:
    """`multiplier * w * x`: what the branch adds to the stream, after its post-norm."""
    return branch.multiplier * x if w is None else branch.multiplier * w * x


@site("token d_model", name="", opaque=True)
def mixer(m: Mixer, x: Array) -> Array:
    """What a state-space, linear-attention or convolution branch adds to the stream: captured, opaque to the equations."""
    raise SignalUnavailableError(
        f"The output of a {m.kind} branch is opaque to the equations: it can be captured or replayed, not computed.",
        gap="ours",
    )


weights(Head, W_in="d_model d_model", b_in=lambda h: "d_model" if h.bias else None)


@site("token d_model", sums="d_model")
def pre(h: Head, x: Array, W_in: Array, b_in: Array | None = None) -> Array:
    """`x @ W_in + b_in`"""
    return plus(x @ W_in, b_in)


@site("token d_model", activation=True)
def post(h: Head, pre: Array) -> Array:
    """`act(pre)`"""
    return ACTIVATIONS[h.act](pre)


@site("token vocab", name="", sums="d_model")
def logits(u: Unembedding, x: Array, W_U: Array, b_U: Array | None = None) -> Array:
    """`softcap(scale * (x @ W_U + b_U))`"""
    return softcap(u.scale * plus(x @ W_U, b_U), u.softcap)
