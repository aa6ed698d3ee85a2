"""Mixtures of experts that a softmax chooses: Mixtral, Qwen 2 and 3, OLMoE, GPT-OSS."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve

from llmtrace.families.blocks import sequential
from llmtrace.families.config import Config
from llmtrace.families.llama import COMMON
from llmtrace.families.native import Family, Native
from llmtrace.families.parts import (
    FULL,
    SLIDING,
    act,
    alike,
    attention,
    gated,
    head_normed,
    layer_types,
    model,
    refuse,
    rms,
    wholly_normed,
    window,
    windowed,
)
from llmtrace.families.rows import AT, ATTENTION, HEAD_NORMS, MLP, PRE_NORMS, STREAM, WHOLE_NORMS, Rows
from llmtrace.spec import Clamp, GatedMlp, ModelSpec, Moe, Shared


def expert_of(c: Config, width: int) -> GatedMlp:
    """One expert."""
    return GatedMlp(width, act(c, c.hidden_act))


def mixtral(c: Config) -> ModelSpec:
    """Llama with experts, whose weights are made to sum to one."""
    experts = Moe(c.num_experts, c.num_experts_per_tok, expert_of(c, c.intermediate_size), renormalise=True)
    a = evolve(attention(c, biases=""), window=window(c.sliding_window))
    return model(c, alike(c, sequential(a, experts, rms(c))), rms(c))


def _dense(c: Config) -> list[int]:
    """The layers that have a plain gated MLP instead of experts."""
    named, first = c.get("mlp_only_layers") or [], c.get("first_k_dense_replace") or 0
    every = c.get("decoder_sparse_step") or 1
    return [layer for layer in range(c.num_hidden_layers) if layer in named or layer < first or (layer + 1) % every]


def with_dense(rows: Rows) -> Callable[[Config], Rows]:
    """The rows of a mixture, and those of its dense layers."""
    return lambda c: rows | {name.replace(".L.", f".{layer}."): row for layer in _dense(c) for name, row in MLP.items()}


def qwen2_moe(c: Config) -> ModelSpec:
    """Experts, and one that every token takes, behind a gate."""
    shared = Shared(expert_of(c, c.shared_expert_intermediate_size), gated=True)
    expert = expert_of(c, c.moe_intermediate_size)
    experts = Moe(c.num_experts, c.num_experts_per_tok, expert, renormalise=bool(c.norm_topk_prob), shared=shared)
    slides = bool(c.use_sliding_window and c.sliding_window)
    kinds = layer_types(c, lambda layer: SLIDING if slides and layer % 2 == 0 and layer < c.max_window_layers else FULL)
    a = attention(c, biases="QKV" if c.qkv_bias else "")
    attentions = [windowed(a, c, kind if slides else FULL) for kind in kinds]
    return model(
        c, [sequential(one, mlp, rms(c)) for one, mlp in zip(attentions, mlps(c, experts), strict=True)], rms(c)
    )


def mlps(c: Config, experts: Moe) -> list[Moe | GatedMlp]:
    """Experts or a dense MLP, layer by layer."""
    dense = _dense(c)
    return [gated(c, bias=False) if layer in dense else experts for layer in range(c.num_hidden_layers)]


def qwen3_moe(c: Config) -> ModelSpec:
    """Qwen 3 with experts in some or all layers."""
    expert = expert_of(c, c.moe_intermediate_size)
    experts = Moe(c.num_experts, c.num_experts_per_tok, expert, renormalise=bool(c.norm_topk_prob))
    a = head_normed(attention(c), c.rms_norm_eps)
    a = evolve(a, window=window(c.sliding_window) if c.use_sliding_window else None)
    return model(c, [sequential(a, mlp, rms(c)) for mlp in mlps(c, experts)], rms(c))


def olmoe(c: Config) -> ModelSpec:
    """Norms over the whole of q and k; the clip of q, k, v comes after them, which the equations do not express."""
    refuse(c, clip_qkv=None)
    expert = expert_of(c, c.intermediate_size)
    experts = Moe(c.num_experts, c.num_experts_per_tok, expert, renormalise=bool(c.norm_topk_prob))
    a = wholly_normed(attention(c), c.rms_norm_eps)
    return model(c, alike(c, sequential(a, experts, rms(c))), rms(c))


def gpt_oss(c: Config) -> ModelSpec:
    """Sinks, windows, and experts with biases and clamps; `x * sigmoid(1.702 x)` whatever `hidden_act` says."""
    refuse(c, hidden_act="silu", swiglu_alpha=1.702)
    expert = GatedMlp(c.intermediate_size, "quick_gelu", bias=True, clamp=Clamp(c.swiglu_limit))
    experts = Moe(c.num_experts, c.num_experts_per_tok, expert, scoring="topk_softmax", router_bias=True)
    a = evolve(attention(c), sinks=True)
    kinds = layer_types(c, lambda layer: FULL if layer % 2 else SLIDING)
    return model(c, [sequential(windowed(a, c, kind), experts, rms(c)) for kind in kinds], rms(c))


def experts(router: str, at: str, gate: str, linear: str, out: str) -> Rows:
    """A checkpoint with one tensor an expert."""
    return {
        "blocks.L.mlp.W_router": Native(f"{AT}{router}.weight", "expert d_model"),
        "blocks.L.mlp.W_gate": Native(f"{AT}{at}.E.{gate}.weight", "d_mlp d_model"),
        "blocks.L.mlp.W_in": Native(f"{AT}{at}.E.{linear}.weight", "d_mlp d_model"),
        "blocks.L.mlp.W_out": Native(f"{AT}{at}.E.{out}.weight", "d_model d_mlp"),
    }


BASE: Rows = STREAM | PRE_NORMS | ATTENTION
EACH: Rows = experts("mlp.gate", "mlp.experts", "gate_proj", "up_proj", "down_proj")
SHARED: Rows = {
    "blocks.L.mlp.shared.W_gate": Native(AT + "mlp.shared_expert.gate_proj.weight", "d_shared d_model"),
    "blocks.L.mlp.shared.W_in": Native(AT + "mlp.shared_expert.up_proj.weight", "d_shared d_model"),
    "blocks.L.mlp.shared.W_out": Native(AT + "mlp.shared_expert.down_proj.weight", "d_model d_shared"),
    "blocks.L.mlp.shared.W_mix": Native(AT + "mlp.shared_expert_gate.weight", "1 d_model"),
}
GPT_OSS: Rows = {
    "blocks.L.attn.sinks": Native(AT + "self_attn.sinks", "head"),
    "blocks.L.mlp.W_router": Native(AT + "mlp.router.weight", "expert d_model"),
    "blocks.L.mlp.b_router": Native(AT + "mlp.router.bias", "expert"),
    "blocks.L.mlp.W_gate": Native(AT + "mlp.experts.gate_up_proj", "expert d_model (d_mlp 1|1)", 0),
    "blocks.L.mlp.W_in": Native(AT + "mlp.experts.gate_up_proj", "expert d_model (d_mlp 1|1)", 1),
    "blocks.L.mlp.b_gate": Native(AT + "mlp.experts.gate_up_proj_bias", "expert (d_mlp 1|1)", 0),
    "blocks.L.mlp.b_in": Native(AT + "mlp.experts.gate_up_proj_bias", "expert (d_mlp 1|1)", 1),
    "blocks.L.mlp.W_out": Native(AT + "mlp.experts.down_proj", "expert d_mlp d_model"),
    "blocks.L.mlp.b_out": Native(AT + "mlp.experts.down_proj_bias", "expert d_model"),
}
LOCAL = {"num_experts": "num_local_experts"}
SPARSE = COMMON | {"norm_topk_prob": False}
QWEN = SPARSE | {"use_sliding_window": False, "sliding_window": 4096, "decoder_sparse_step": 1}
OSS_ROPE = {
    "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
    "original_max_position_embeddings": 4096, "rope_theta": 150000.0,
}  # fmt: skip
FAMILIES: dict[str, Family] = {
    "mixtral": Family(
        mixtral,
        BASE | experts("block_sparse_moe.gate", "block_sparse_moe.experts", "w1", "w3", "w2"),
        defaults=COMMON
        | {"rms_norm_eps": 1e-5, "rope_theta": 1000000.0, "num_key_value_heads": 8, "sliding_window": None}
        | {"num_experts": 8, "num_experts_per_tok": 2},
        spellings=LOCAL,
    ),
    "qwen2_moe": Family(
        qwen2_moe,
        BASE | EACH | SHARED,
        defaults=QWEN
        | {"num_key_value_heads": 16, "num_experts": 60, "num_experts_per_tok": 4, "moe_intermediate_size": 1408}
        | {"shared_expert_intermediate_size": 5632, "max_window_layers": 28, "qkv_bias": True},
        variant=with_dense(BASE | EACH | SHARED),
    ),
    "qwen3_moe": Family(
        qwen3_moe,
        BASE | HEAD_NORMS | EACH,
        defaults=QWEN
        | {"num_key_value_heads": 4, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768},
        spellings=LOCAL,
        variant=with_dense(BASE | HEAD_NORMS | EACH),
    ),
    "olmoe": Family(
        olmoe,
        BASE | WHOLE_NORMS | EACH,
        defaults=SPARSE | {"rms_norm_eps": 1e-5, "clip_qkv": None, "num_experts": 64, "num_experts_per_tok": 8},
    ),
    "gpt_oss": Family(
        gpt_oss,
        BASE | GPT_OSS,
        defaults=COMMON
        | {
            "rms_norm_eps": 1e-5,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "sliding_window": 128,
            "attention_bias": True,
        }
        | {
            "num_experts": 128,
            "num_experts_per_tok": 4,
            "swiglu_limit": 7.0,
            "rope_parameters": OSS_ROPE,
            "rope_theta": 150000.0,
        },
        spellings=LOCAL,
    ),
}
