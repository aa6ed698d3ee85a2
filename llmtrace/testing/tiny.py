"""Tiny seeded models, one a family: few layers, odd sizes, every feature switched on that would hide a mistake if it were off.

**Tiny**: 3 layers, width 64, 4 heads, 97 tokens, a context of 64. Norm weights, biases and sinks are random, because a model whose
norm weights are one and whose biases are zero agrees with a wrong table of names. Only `write_tiny` needs torch and transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 64,
    "intermediate_size": 96, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
GQA = SMALL | {"num_key_value_heads": 2}
HEADS = GQA | {"head_dim": 24}
"""heads * d_head is not the width."""
GPT: dict[str, Any] = {
    "vocab_size": 97, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 64, "pad_token_id": None, "bos_token_id": None,
    "eos_token_id": None,
}  # fmt: skip
UNKNOWING = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
BARE = {key: value for key, value in SMALL.items() if key not in ("max_position_embeddings", "intermediate_size")}
MULTIPLIERS = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.5,
    "logits_scaling": 4.0,
}
SOFTCAPS = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 20}
WINDOW = {"sliding_window": 5}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 2,
    "first_k_dense_replace": 1, "norm_topk_prob": True, "routed_scaling_factor": 1.5,
}  # fmt: skip
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]

TINY: dict[str, dict[str, Any]] = {
    "llama": HEADS | {"attention_bias": True, "mlp_bias": True},
    "mistral": HEADS | WINDOW,
    "ministral": HEADS | WINDOW | {"layer_types": MIXED},
    "qwen2": GQA | WINDOW | {"use_sliding_window": True, "max_window_layers": 1},
    "qwen3": HEADS | {"attention_bias": True},
    "granite": GQA | MULTIPLIERS | {"attention_bias": True, "mlp_bias": True},
    "phi3": GQA | WINDOW,
    "smollm3": GQA | WINDOW | {"use_sliding_window": True, "no_rope_layer_interval": 2},
    "hunyuan_v1_dense": HEADS | {"attention_bias": True},
    "helium": GQA | {"head_dim": 16, "attention_bias": True},
    "ernie4_5": HEADS | {"use_bias": True},
    "seed_oss": HEADS,
    "arcee": HEADS | {"attention_bias": True, "mlp_bias": True},
    "gemma": HEADS,
    "gemma2": HEADS | WINDOW | SOFTCAPS,
    "vaultgemma": HEADS | WINDOW | SOFTCAPS,
    "gemma3_text": HEADS | WINDOW | {"query_pre_attn_scalar": 20, "sliding_window_pattern": 3},
    "olmo": GQA | {"clip_qkv": 0.3, "attention_bias": True},
    "olmo2": GQA | {"attention_bias": True},
    "olmo3": GQA | WINDOW | {"layer_types": MIXED},
    "exaone4": HEADS | WINDOW | {"layer_types": MIXED},
    "gpt2": GPT | {"scale_attn_by_inverse_layer_idx": True},
    "gpt_bigcode": GPT,
    "gpt_neo": {key: value for key, value in SMALL.items() if key not in ("num_hidden_layers", "num_attention_heads")}
    | {"num_layers": 3, "num_heads": 4, "attention_types": [[["local", "global", "local"], 1]], "window_size": 5},
    "opt": SMALL | {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "gptj": GPT | {"rotary_dim": 8},
    "codegen": GPT | {"rotary_dim": 8, "n_head": 8},
    "gpt_neox": SMALL,
    "phi": GQA | {"qk_layernorm": True},
    "stablelm": GQA | {"qk_layernorm": True, "use_qkv_bias": True},
    "starcoder2": GQA | WINDOW,
    "nemotron": HEADS | {"attention_bias": True, "mlp_bias": True},
    "cohere": GQA | {"use_qk_norm": True, "logit_scale": 0.3, "attention_bias": True},
    "cohere2": GQA | WINDOW | {"layer_types": MIXED},
    "glm": HEADS,
    "glm4": HEADS,
    "falcon": BARE | {"alibi": True, "max_position_embeddings": 64},
    "bloom": UNKNOWING | {"vocab_size": 97, "hidden_size": 64, "n_layer": 3, "n_head": 4},
    "mpt": {
        "vocab_size": 97,
        "d_model": 64,
        "n_layers": 3,
        "n_heads": 4,
        "max_seq_len": 64,
        "attn_config": {"clip_qkv": 0.3},
    },
    "mixtral": GQA | LOCAL | WINDOW,
    "qwen2_moe": GQA | EXPERTS | {"shared_expert_intermediate_size": 48},
    "qwen3_moe": HEADS | EXPERTS,
    "olmoe": GQA | {"num_experts": 4, "num_experts_per_tok": 2},
    "granitemoe": GQA | LOCAL | MULTIPLIERS,
    "granitemoeshared": GQA | LOCAL | MULTIPLIERS | {"shared_intermediate_size": 48},
    "glm4_moe": HEADS | ROUTED | {"use_qk_norm": True, "attention_bias": True},
    "dots1": GQA | ROUTED | WINDOW | {"max_window_layers": 2, "attention_bias": True},
    "gpt_oss": HEADS | LOCAL | WINDOW | {"swiglu_limit": 0.8},
}
"""Family to the keyword arguments of its transformers config."""


def write_tiny(family: str, directory: Path, seed: int = 0, **overrides: Any) -> Any:
    """A seeded float32 checkpoint in `directory`; returns the transformers model, in evaluation mode.

    `overrides` are keys of the family's transformers config. Needs torch and transformers.
    """
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(family, **{**TINY[family], **overrides})
    generator = torch.Generator().manual_seed(seed)
    auto: Any = transformers.AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the mean that a vector keeps may itself be random, as that of sinks is
        model = auto.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        corrections = [buffer for name, buffer in model.named_buffers() if name.endswith("e_score_correction_bias")]
        for weight in [
            *model.parameters(),
            *corrections,
        ]:  # vectors are norms, biases and sinks: they keep their mean, one or zero
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(weight.mean() + 0.3 * noise if weight.ndim == 1 else 0.06 * noise)
    model.save_pretrained(directory)
    return model
