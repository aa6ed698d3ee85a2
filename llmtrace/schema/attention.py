"""Attention, from what it reads (`x`, [token d_model]) to its own output."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llmtrace.errors import SignalUnavailableError
from llmtrace.schema import norm
from llmtrace.schema.functions import ACTIVATIONS, plus, softcap, softmax
from llmtrace.schema.rotary import by_length, frequencies, rotate
from llmtrace.schema.sites import Array, WeightRow, site, weights
from llmtrace.spec import Attention, Latent, Norm, OpaqueHeads


def _late(which: str, part: str) -> WeightRow:
    """A weight of a q or k norm that comes after rotary: then the norm has no sites of its own, and `rot_q` reads its weights."""

    def axes(a: Attention) -> str | None:
        n: Norm | None = getattr(a, which) if a.norm_after_rotary else None
        return f"{n.each} {n.over}".strip() if n and (n.weight if part == "w" else n.bias) else None

    return WeightRow(f"{which}.{part}", axes)


def _z_norm(part: str) -> WeightRow:
    def axes(a: Attention) -> str | None:
        n = a.z_norm
        return f"{n.each} {n.over}".strip() if n and (n.weight if part == "w" else n.bias) else None

    return WeightRow(f"z_norm.{part}", axes)


def _gate(a: Attention) -> str | None:
    if a.gate is None:
        return None
    return "head d_model 1" if a.gate.per_head else "head d_model d_value"


def _opaque(what: str) -> SignalUnavailableError:
    return SignalUnavailableError(
        f"{what} is opaque to the equations here: it can be captured or replayed, not computed.", gap="ours"
    )


def projected(a: Attention) -> bool:
    """Whether q, k and v are each one product of what the branch reads."""
    return a.projected


weights(
    Attention,
    W_Q=lambda a: f"head {'q_rank' if a.q_latent else 'd_model'} d_head" if a.projected else None,
    W_K=lambda a: ("kv_head kv_rank d_own" if a.kv_latent else "kv_head d_model d_head") if a.projected else None,
    W_V=lambda a: f"kv_head {'kv_rank' if a.kv_latent else 'd_model'} d_value" if a.projected else None,
    W_KR=lambda a: "d_model d_shared" if a.shared else None,
    b_KR=lambda a: "d_shared" if a.shared and a.kv_latent and a.kv_latent.bias else None,
    W_O="head d_value d_model",
    b_Q=lambda a: "head d_head" if "Q" in a.biases else None,
    b_K=lambda a: "kv_head d_head" if "K" in a.biases else None,
    b_V=lambda a: "kv_head d_value" if "V" in a.biases else None,
    b_O=lambda a: "d_model" if "O" in a.biases else None,
    q_norm_w=_late("q_norm", "w"), q_norm_b=_late("q_norm", "b"),
    k_norm_w=_late("k_norm", "w"), k_norm_b=_late("k_norm", "b"),
    z_norm_w=_z_norm("w"), z_norm_b=_z_norm("b"),
    sinks=lambda a: "head" if a.sinks else None,
    W_gate=_gate, b_gate=lambda a: "head 1" if a.gate and a.gate.bias else None,
)  # fmt: skip


def turning_noise(a: Attention, signals: Mapping[str, Array]) -> float:
    """Angles are rounded in proportion to their size, so late positions are noisier: n² mean(f²), n the last position."""
    if a.rotary is None:
        return 0.0
    last = int(signals["positions"].max())
    return float(((last * frequencies(a.rotary, last + 1)) ** 2).mean())


def softmax_gain(a: Attention, signals: Mapping[str, Array]) -> float:
    """The pattern's relative error is the scores' *absolute* error, hence mean(scores²) over what a query sees."""
    scores = signals["scores"]
    seen = scores[np.isfinite(scores)].astype(np.float64)
    return float((seen**2).sum() / max(seen.size, 1))


def visible(positions: Array, window: int | None) -> Array:
    """Which keys a query may see, [query key]: itself and those before it, `window - 1` at most."""
    return sees(positions, positions, window)


def sees(queries: Array, keys: Array, window: int | None) -> Array:
    """The same of queries and keys at the given positions, [query key]."""
    distance = queries[:, None] - keys[None, :]
    return np.asarray((distance >= 0) & (distance < (window or np.inf)))


def grouped(a: Attention, x: Array) -> Array:
    """`[token kv_head d]` as `[kv_head 1 token d]`, to be met by `[kv_head group token d]`."""
    return x.transpose(1, 0, 2)[:, None]


def by_group(a: Attention, x: Array) -> Array:
    """`[token head d]` as `[kv_head group token d]`."""
    return x.transpose(1, 0, 2).reshape(a.kv_heads, a.heads // a.kv_heads, x.shape[0], x.shape[2])


def _project(a: Attention, x: Array, w: Array, b: Array | None) -> Array:
    """`x @ W + b` for every head: one product with all heads' matrices side by side."""
    heads, d_model, width = w.shape
    y = (x @ w.transpose(0, 2, 1).reshape(heads * width, d_model).T).reshape(len(x), heads, width)
    y = plus(y, b)
    return y if a.clip is None else np.clip(y, -a.clip, a.clip)


@site("token head d_head", sums="d_model", when=projected)
def q(a: Attention, x: Array, W_Q: Array, b_Q: Array | None = None, q_latent: Array | None = None) -> Array:
    """`clip(x @ W_Q + b_Q)`; of the latent instead of x, where there is one."""
    return _project(a, x if q_latent is None else q_latent, W_Q, b_Q)


@site("token kv_head d_head", sums="d_model", when=projected)
def k(
    a: Attention,
    x: Array,
    W_K: Array,
    b_K: Array | None = None,
    kv_latent: Array | None = None,
    W_KR: Array | None = None,
    b_KR: Array | None = None,
) -> Array:
    """`clip(x @ W_K + b_K)`; with a latent `[latent @ W_K, x @ W_KR + b_KR]`, the second part the same in all heads."""
    if kv_latent is None:
        return _project(a, x, W_K, b_K)
    own = _project(a, kv_latent, W_K, b_K)
    if W_KR is None:
        return own
    shared = plus(x @ W_KR, b_KR)[:, None]
    return np.concatenate([own, np.broadcast_to(shared, (*own.shape[:2], a.shared))], axis=-1)


@site("token kv_head d_value", sums="d_model", when=projected)
def v(a: Attention, x: Array, W_V: Array, b_V: Array | None = None, kv_latent: Array | None = None) -> Array:
    """`norm(clip(x @ W_V + b_V))`: what the pattern mixes; the norm only where the model has one; of the latent instead of x, where there is one."""
    return norm.apply(a.v_norm, _project(a, x if kv_latent is None else kv_latent, W_V, b_V))


def _turn(a: Attention, n: Norm | None, x: Array, positions: Array, w: Array | None, b: Array | None) -> Array:
    """Rotary, and the norm where it comes after (before it, the norm is a part with sites of its own)."""
    turned = rotate(a.rotary, x, positions)
    return norm.apply(n, turned, w, b) if a.norm_after_rotary else turned


weights(Latent, W=lambda c: f"d_model {c.axis}", b=lambda c: c.axis if c.bias else None)


@site(lambda c, axes: f"token {c.axis}", name="", sums="d_model")
def latent(c: Latent, x: Array, W: Array, b: Array | None = None) -> Array:
    """`x @ W + b`: what queries, or keys and values, are made of, after its norm."""
    return plus(x @ W, b)


@site(lambda heads, axes: heads.axes, name="", opaque=True)
def opaque_heads(heads: OpaqueHeads, x: Array) -> Array:
    """What stands for `rot_q`, `rot_k` or v where no equation says how it is made: captured, opaque to the equations."""
    raise _opaque("How queries, keys and values are made")


@site(
    "token head d_head",
    noise=turning_noise,
    across=lambda a: "q positions" if by_length(a.rotary) else "",
    when=projected,
)
def rot_q(
    a: Attention, q: Array, positions: Array, q_norm_w: Array | None = None, q_norm_b: Array | None = None
) -> Array:
    """`rotary(q_norm(q))`, in the model's order; q itself where there is neither."""
    return _turn(a, a.q_norm, q, positions, q_norm_w, q_norm_b)


@site(
    "token kv_head d_head",
    noise=turning_noise,
    across=lambda a: "k positions" if by_length(a.rotary) else "",
    when=projected,
)
def rot_k(
    a: Attention, k: Array, positions: Array, k_norm_w: Array | None = None, k_norm_b: Array | None = None
) -> Array:
    """`rotary(k_norm(k))`, in the model's order; k itself where there is neither."""
    return _turn(a, a.k_norm, k, positions, k_norm_w, k_norm_b)


@site("query key", opaque=True, when=lambda a: a.selective)
def selected(a: Attention, x: Array) -> Array:
    """1 where an indexer lets a query see a key, 0 elsewhere: captured, opaque to the equations."""
    raise _opaque("Which keys a query may see")


@site("head query key", opaque=True, when=lambda a: a.masked)
def mask(a: Attention, x: Array) -> Array:
    """What is added to scores and follows from what the tokens are, -inf where it hides a key: captured, opaque to the equations."""
    raise _opaque("What masks keys")


def _meeting(a: Attention) -> str:
    """The mask is of all queries by all keys."""
    return "rot_q rot_k positions" + " selected" * a.selective + " mask" * a.masked


@site("head query key", sums="d_head", across=_meeting)
def scores(
    a: Attention,
    rot_q: Array,
    rot_k: Array,
    positions: Array,
    selected: Array | None = None,
    mask: Array | None = None,
) -> Array:
    """`softcap(scale * rot_q · rot_k) + slope * (key - query) + mask`; what a query may not see is -inf."""
    length = len(positions)
    product = by_group(a, rot_q) @ grouped(a, rot_k).swapaxes(-1, -2)
    product *= a.scale  # in place, as below: scores are large, and each array more costs as much as the arithmetic
    s = softcap(product.reshape(a.heads, length, length), a.softcap)
    if a.slopes:
        s = s + np.asarray(a.slopes, s.dtype)[:, None, None] * (positions[None, :] - positions[:, None]).astype(s.dtype)
    if mask is not None:
        s = s + mask
    np.copyto(s, -np.inf, where=~visible(positions, a.window))
    if selected is not None:
        np.copyto(s, -np.inf, where=selected == 0)
    return s


def _with_sink(scores: Array, sinks: Array | None) -> Array:
    """Softmax with the sink as a last, imaginary key: [head query key + 1]."""
    column = np.full((*scores.shape[:2], 1), -np.inf, scores.dtype)
    if sinks is not None:
        column[:] = sinks[:, None, None]
    return softmax(np.concatenate([scores, column], axis=-1))


@site("head query key", gain=softmax_gain)
def pattern(a: Attention, scores: Array, sinks: Array | None = None) -> Array:
    """`softmax(scores)`; with sinks the rows sum to `1 - sink`, unless that is taken off z."""
    return softmax(scores) if sinks is None or a.sinks_after else _with_sink(scores, sinks)[..., :-1]


@site("head query", gain=softmax_gain, when=lambda a: a.sinks)
def sink(a: Attention, scores: Array, sinks: Array) -> Array:
    """The mass that the learned sink logits took: it went to no token."""
    return _with_sink(scores, sinks)[..., -1]


@site("head query", gain=softmax_gain, when=lambda a: a.sinks and a.sinks_after)
def kept(a: Attention, scores: Array, sinks: Array) -> Array:
    """`1 - sink`: what multiplies z where sinks are taken off it."""
    return 1 - _with_sink(scores, sinks)[..., -1]


@site("token head d_value", sums="key", across="v")
def z(a: Attention, pattern: Array, v: Array) -> Array:
    """`pattern @ v`"""
    heads, queries, keys = pattern.shape
    mixed = pattern.reshape(a.kv_heads, heads // a.kv_heads, queries, keys) @ grouped(a, v)
    return mixed.reshape(heads, queries, a.d_value).transpose(1, 0, 2)


def _gate_axes(a: Attention, reads: tuple[str, ...]) -> str:
    return "token head 1" if a.gate and a.gate.per_head else "token head d_value"


@site(_gate_axes, sums="d_model", when=lambda a: a.gate is not None)
def gate(a: Attention, x: Array, W_gate: Array, b_gate: Array | None = None) -> Array:
    """`act(x @ W_gate + b_gate)`: what multiplies z."""
    heads, d_model, width = W_gate.shape
    pre = (x @ W_gate.transpose(0, 2, 1).reshape(heads * width, d_model).T).reshape(len(x), heads, width)
    pre = plus(pre, b_gate)
    return ACTIVATIONS[a.gate.act](pre) if a.gate else pre


@site("token head d_value", when=lambda a: a.mixed)
def z_post(
    a: Attention,
    z: Array,
    kept: Array | None = None,
    gate: Array | None = None,
    z_norm_w: Array | None = None,
    z_norm_b: Array | None = None,
) -> Array:
    """`gate * norm(kept * z)`: what enters `W_O`; z itself where nothing stands between."""
    left = z if kept is None else z * kept.T[..., None]
    normed = norm.apply(a.z_norm, left, z_norm_w, z_norm_b)
    return normed if gate is None else normed * gate


@site("token head d_model", sums="d_value", on_request=True)
def result(a: Attention, z_post: Array, W_O: Array) -> Array:
    """`z_post_h @ W_O[h]`: each head's own output."""
    return (z_post.transpose(1, 0, 2) @ W_O).transpose(1, 0, 2)


@site("token d_model", sums="head d_value")
def out(a: Attention, z_post: Array, W_O: Array, b_O: Array | None = None) -> Array:
    """`sum_h z_post_h @ W_O[h] + b_O`: the module's output, before post-norm and multiplier."""
    return plus(z_post.reshape(len(z_post), -1) @ W_O.reshape(-1, W_O.shape[-1]), b_O)
