"""DeepSeek's mixture with plain attention (GLM 4.5, dots): sigmoid scores, a bias that corrects the choice, dense layers first."""

from __future__ import annotations

from operator import index

from attrs import evolve

from llmtrace.families.blocks import sequential
from llmtrace.families.config import Config
from llmtrace.families.llama import COMMON
from llmtrace.families.moe import BASE, EACH, SHARED, expert_of, mlps, with_dense
from llmtrace.families.native import Family, Native
from llmtrace.families.parts import FULL, SLIDING, attention, head_normed, layer_types, model, refuse, rms, windowed
from llmtrace.families.rows import AT, HEAD_NORMS, Rows
from llmtrace.spec import ModelSpec, Moe, Shared


def _corrected(c: Config) -> Moe:
    """DeepSeek's mixture: sigmoid scores, a bias for the choice only, experts that every token takes; groups are refused."""
    refuse(c, n_group=1, topk_group=1)
    shared = Shared(
        expert_of(c, index(c.moe_intermediate_size) * index(c.n_shared_experts))
    )  # a text would be repeated
    expert = expert_of(c, c.moe_intermediate_size)
    return Moe(
        c.num_experts, c.num_experts_per_tok, expert, "sigmoid", bool(c.norm_topk_prob), float(c.routed_scaling_factor),
        correction=True, shared=shared,
    )  # fmt: skip


def glm4_moe(c: Config) -> ModelSpec:
    """GLM 4.5: partial rotary, dense layers first, DeepSeek's mixture then; perhaps norms on q and k."""
    a = attention(c, biases="QKV" if c.attention_bias else "")
    a = head_normed(a, c.rms_norm_eps) if c.use_qk_norm else a
    return model(c, [sequential(a, mlp, rms(c)) for mlp in mlps(c, _corrected(c))], rms(c))


def dots1(c: Config) -> ModelSpec:
    """Norms on q and k, windows in the late layers, dense layers first, DeepSeek's mixture then."""
    slides = c.sliding_window is not None
    kinds = layer_types(c, lambda layer: SLIDING if slides and layer >= c.max_window_layers else FULL)
    a = head_normed(attention(c), c.rms_norm_eps)
    blocks = [
        sequential(windowed(a, c, kind), mlp, rms(c)) for kind, mlp in zip(kinds, mlps(c, _corrected(c)), strict=True)
    ]
    return model(c, blocks, rms(c))


CORRECTED: Rows = {
    name: evolve(row, name=row.name.replace("shared_expert.", "shared_experts.")) for name, row in SHARED.items()
} | {
    "blocks.L.mlp.b_correction": Native(AT + "mlp.gate.e_score_correction_bias", "expert"),
}
DEEPSEEK: Rows = BASE | HEAD_NORMS | EACH | CORRECTED
DEEPSEEKS = COMMON | {"n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.0, "moe_intermediate_size": 1408}
ROUTED = {"num_experts": "n_routed_experts"}
FAMILIES: dict[str, Family] = {
    "glm4_moe": Family(
        glm4_moe,
        DEEPSEEK,
        defaults=DEEPSEEKS
        | {"rms_norm_eps": 1e-5, "num_key_value_heads": 8, "partial_rotary_factor": 0.5, "use_qk_norm": False}
        | {
            "n_shared_experts": 1,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "first_k_dense_replace": 1,
            "norm_topk_prob": True,
        },
        spellings=ROUTED,
        variant=with_dense(DEEPSEEK),
        unread=(r"^model\.layers\.(46|92)\.",),
    ),
    "dots1": Family(
        dots1,
        DEEPSEEK,
        defaults=DEEPSEEKS
        | {"first_k_dense_replace": 0, "norm_topk_prob": False, "sliding_window": 4096, "max_window_layers": 62},
        spellings=ROUTED,
        variant=with_dense(DEEPSEEK),
    ),
}
