"""OLMo 1 to 3: layer norms without weights and clipped q, k, v; then norms after the branches and on the whole of q and k."""

from __future__ import annotations

from attrs import evolve

from llmtrace.families.blocks import post_norm, sequential
from llmtrace.families.config import Config
from llmtrace.families.llama import COMMON
from llmtrace.families.native import Family
from llmtrace.families.parts import (
    FULL,
    SLIDING,
    alike,
    attention,
    gated,
    head_normed,
    layer_norm,
    layer_types,
    model,
    rms,
    wholly_normed,
    windowed,
)
from llmtrace.families.rows import ATTENTION, HEAD_NORMS, MLP, POST_NORMS, STREAM, WHOLE_NORMS
from llmtrace.spec import ModelSpec


def olmo(c: Config) -> ModelSpec:
    """Norms have neither weight nor bias."""
    norm = layer_norm(1e-5, weight=False, bias=False)
    a = evolve(attention(c), clip=c.clip_qkv)
    return model(c, alike(c, sequential(a, gated(c, bias=False), norm)), norm)


def olmo2(c: Config) -> ModelSpec:
    """Norms only after the branches; q and k normed over their whole width."""
    a = wholly_normed(attention(c), c.rms_norm_eps)
    return model(c, alike(c, post_norm(a, gated(c, bias=False), rms(c))), rms(c))


def olmo3(c: Config) -> ModelSpec:
    """OLMo 2 with windows in three layers of four; only the others stretch their rotary embedding."""
    kinds = layer_types(c, lambda layer: SLIDING if (layer + 1) % 4 else FULL)
    attentions = [windowed(wholly_normed(attention(c, kind=kind), c.rms_norm_eps), c, kind) for kind in kinds]
    return model(c, [post_norm(a, gated(c, bias=False), rms(c)) for a in attentions], rms(c))


def exaone4(c: Config) -> ModelSpec:
    """Norms after the branches, q and k normed by head; full-attention layers of a windowed model have no rotary."""
    pattern = c.sliding_window_pattern if c.sliding_window else 0
    kinds = layer_types(c, lambda layer: SLIDING if pattern and (layer + 1) % pattern else FULL)
    a = head_normed(attention(c, biases=""), c.rms_norm_eps)
    attentions = [
        windowed(evolve(a, rotary=None) if c.sliding_window and kind == FULL else a, c, kind) for kind in kinds
    ]
    return model(c, [post_norm(one, gated(c, bias=False), rms(c)) for one in attentions], rms(c))


POST = STREAM | ATTENTION | MLP | POST_NORMS
FAMILIES: dict[str, Family] = {
    "olmo": Family(olmo, STREAM | ATTENTION | MLP, defaults=COMMON | {"clip_qkv": None}),
    "olmo2": Family(olmo2, POST | WHOLE_NORMS, defaults=COMMON | {"rms_norm_eps": 1e-5}),
    "olmo3": Family(
        olmo3,
        POST | WHOLE_NORMS,
        defaults=COMMON | {"rms_norm_eps": 1e-5, "rope_theta": 500000.0, "sliding_window": 4096},
    ),
    "exaone4": Family(
        exaone4,
        POST | HEAD_NORMS,
        defaults=COMMON
        | {"rms_norm_eps": 1e-5, "num_key_value_heads": 32, "sliding_window": 4096, "sliding_window_pattern": 4},
    ),
}
