"""Llama, and the families that differ from it by a norm on q and k, a window, a multiplier or a fused tensor."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from llmtrace.families.blocks import sequential
from llmtrace.families.config import Config
from llmtrace.families.native import Family
from llmtrace.families.parts import (
    FULL,
    SLIDING,
    alike,
    attention,
    gated,
    head_normed,
    layer_types,
    model,
    plain,
    rms,
    window,
    windowed,
)
from llmtrace.families.rope import parameters
from llmtrace.families.rows import AT, ATTENTION, GATE_UP, HEAD_NORMS, LLAMA, PRE_NORMS, SLOTS, STREAM, fused, norms
from llmtrace.spec import DynamicNtk, GatedMlp, Mlp, ModelSpec

COMMON: dict[str, Any] = {
    "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "attention_bias": False, "mlp_bias": False,
}  # fmt: skip
"""What Llama's config and those of its kin assume."""


def llama(c: Config) -> ModelSpec:
    """Pre-norm, sequential, gated."""
    return model(c, alike(c, sequential(attention(c), gated(c), rms(c))), rms(c))


def mistral(c: Config) -> ModelSpec:
    """Llama with one window for all layers."""
    a = evolve(attention(c, biases=""), window=window(c.sliding_window))
    return model(c, alike(c, sequential(a, gated(c, bias=False), rms(c))), rms(c))


def ministral(c: Config) -> ModelSpec:
    """Llama with windows in some layers."""
    a, kinds = attention(c, biases=""), layer_types(c, lambda layer: SLIDING if c.sliding_window else FULL)
    return model(c, [sequential(windowed(a, c, kind), gated(c, bias=False), rms(c)) for kind in kinds], rms(c))


def _qwen_kinds(c: Config) -> list[str]:
    """Windows from layer `max_window_layers` on, if windows are used at all."""
    slides = c.use_sliding_window and c.sliding_window is not None
    kinds = layer_types(c, lambda layer: SLIDING if slides and layer >= c.max_window_layers else FULL)
    return kinds if slides else [FULL] * len(kinds)


def qwen2(c: Config) -> ModelSpec:
    """Biases on q, k and v; windows in the late layers where they are switched on."""
    a = attention(c, biases="QKV")
    return model(c, [sequential(windowed(a, c, kind), gated(c, bias=False), rms(c)) for kind in _qwen_kinds(c)], rms(c))


def qwen3(c: Config) -> ModelSpec:
    """A norm per head of q and k."""
    a = head_normed(attention(c), c.rms_norm_eps)
    return model(c, [sequential(windowed(a, c, kind), gated(c, bias=False), rms(c)) for kind in _qwen_kinds(c)], rms(c))


def phi3(c: Config) -> ModelSpec:
    """Fused projections, LongRoPE, one window for all layers."""
    return mistral(c)


def smollm3(c: Config) -> ModelSpec:
    """Every few layers have no rotary embedding; those may have a window."""
    turned = c.get("no_rope_layers") or [
        (layer + 1) % c.no_rope_layer_interval != 0 for layer in range(c.num_hidden_layers)
    ]
    slides = c.use_sliding_window and c.sliding_window is not None
    kinds = layer_types(c, lambda layer: SLIDING if slides and not turned[layer] else FULL)
    a = attention(c)
    attentions = [
        evolve(windowed(a, c, kind), rotary=a.rotary if turn else None)
        for kind, turn in zip(kinds, turned, strict=True)
    ]
    return model(c, [sequential(one, gated(c), rms(c)) for one in attentions], rms(c))


def hunyuan(c: Config) -> ModelSpec:
    """Norms on q and k after rotary; a fixed `alpha` raises the rotary base, which its configs call dynamic."""
    p, a = parameters(c), head_normed(attention(c), c.rms_norm_eps)
    if a.rotary and isinstance(a.rotary.scaling, DynamicNtk) and p.get("alpha"):
        theta = a.rotary.theta * p["alpha"] ** (a.rotary.width / (a.rotary.width - 2))
        a = evolve(a, rotary=evolve(a.rotary, theta=theta, scaling=None))
    spec = model(c, alike(c, sequential(evolve(a, norm_after_rotary=True), gated(c, bias=False), rms(c))), rms(c))
    return evolve(spec, context=int(c.max_position_embeddings)) if p.get("alpha") else spec


def helium(c: Config) -> ModelSpec:
    """Interleaved rotary."""
    a = attention(c, biases="QKV" if c.attention_bias else "", layout="interleaved")
    return model(c, alike(c, sequential(a, gated(c), rms(c))), rms(c))


def ernie(c: Config) -> ModelSpec:
    """Interleaved rotary; one switch for all biases."""
    a = attention(c, biases="QKVO" if c.use_bias else "", layout="interleaved")
    return model(c, alike(c, sequential(a, gated(c, bias=c.use_bias), rms(c))), rms(c))


def seed_oss(c: Config) -> ModelSpec:
    """Separate switches for the biases before and after attention."""
    a = attention(c, biases=("QKV" if c.attention_bias else "") + ("O" if c.attention_out_bias else ""))
    return model(c, alike(c, sequential(a, gated(c), rms(c))), rms(c))


def arcee(c: Config) -> ModelSpec:
    """A plain MLP with a squared ReLU."""
    mlp: Mlp | GatedMlp = plain(c, c.intermediate_size, c.hidden_act, bias=bool(c.mlp_bias))
    return model(c, alike(c, sequential(attention(c), mlp, rms(c))), rms(c))


WINDOWS = COMMON | {
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "num_key_value_heads": 32,
}
PHI3_ROWS = STREAM | PRE_NORMS | ATTENTION | {"blocks.L.mlp.W_out": LLAMA["blocks.L.mlp.W_out"]} | GATE_UP
HUNYUAN_NORMS = norms(
    {"blocks.L.attn.q_norm": AT + "self_attn.query_layernorm", "blocks.L.attn.k_norm": AT + "self_attn.key_layernorm"},
    "d_head",
)
FAMILIES: dict[str, Family] = {
    "llama": Family(llama, LLAMA, defaults=COMMON),
    "mistral": Family(mistral, LLAMA, defaults=COMMON | {"sliding_window": 4096, "num_key_value_heads": 8}),
    "ministral": Family(ministral, LLAMA, defaults=COMMON | {"sliding_window": 4096, "num_key_value_heads": 8}),
    "qwen2": Family(qwen2, LLAMA, defaults=WINDOWS),
    "qwen3": Family(qwen3, LLAMA | HEAD_NORMS, defaults=WINDOWS | {"head_dim": 128}),
    "phi3": Family(
        phi3,
        PHI3_ROWS | fused(AT + "self_attn.qkv_proj", SLOTS),
        defaults=COMMON | {"rms_norm_eps": 1e-5, "sliding_window": None, "original_max_position_embeddings": 4096},
    ),
    "smollm3": Family(
        smollm3,
        LLAMA,
        defaults=COMMON
        | {"rope_theta": 2000000.0, "num_key_value_heads": 4, "use_sliding_window": False, "sliding_window": None}
        | {"no_rope_layer_interval": 4, "tie_word_embeddings": True},
    ),
    "hunyuan_v1_dense": Family(hunyuan, LLAMA | HUNYUAN_NORMS, defaults=COMMON | {"rms_norm_eps": 1e-5}),
    "helium": Family(
        helium,
        LLAMA,
        defaults=COMMON | {"rms_norm_eps": 1e-8, "rope_theta": 100000.0, "num_key_value_heads": 20, "head_dim": 128},
    ),
    "ernie4_5": Family(
        ernie,
        LLAMA,
        defaults=COMMON
        | {"rms_norm_eps": 1e-5, "rope_theta": 500000.0, "num_key_value_heads": 2, "head_dim": 128}
        | {"use_bias": False, "tie_word_embeddings": True},
    ),
    "seed_oss": Family(
        seed_oss,
        LLAMA,
        defaults=COMMON
        | {"num_key_value_heads": 8, "head_dim": 128, "attention_bias": True, "attention_out_bias": False},
    ),
    "arcee": Family(arcee, LLAMA, defaults=COMMON | {"hidden_act": "relu2", "rms_norm_eps": 1e-5}),
}
