"""Architectures that compute what another family does under a name of their own, as tiny models."""

from __future__ import annotations

BARE = {"attention_bias": False, "mlp_bias": False}
KIN = {
    "exaone": ("llama", BARE),
    "internlm2": ("llama", {**BARE, "head_dim": 16}),
    "minicpm": ("granite", {}),
    "mistral3": ("llama", BARE),
    "pangu-embedded": ("llama", {"mlp_bias": False}),
    "qwen2vl": ("qwen2", {"rms_norm_eps": 1e-20}),
    "qwen3vl": ("qwen3", {"attention_bias": False}),
    "qwen3vlmoe": ("qwen3_moe", {}),
    "xverse": ("llama", {**BARE, "head_dim": 16}),
}
"""Architecture to family and the keys of its config. Builds of llama.cpp of October 2026 take no epsilon for qwen2vl, whatever the file
says: a small one is right in all.
"""
