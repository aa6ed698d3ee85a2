"""Architectures that llama.cpp runs and that are not opened, and what stands in the way.

Others that are not in the table either (`orion`, `grok`, `dbrx`, …) may be sequences of parts that the equations know: they lack a row.
"""

from __future__ import annotations

from collections.abc import Mapping

BOTH_WAYS = "attention in both directions"
RECURRENT = "linear-attention layers"
STATES = "state-space layers"
LATENT = "multi-head latent attention"
WITH_ENCODER = "an encoder"
SPARSE = "attention to chosen tokens only"

REASONS: Mapping[str, str] = {
    **dict.fromkeys(
        ["bert", "eurobert", "gemma-embedding", "gemma-embedding2", "jina-bert-v2", "jina-bert-v3"], BOTH_WAYS
    ),
    **dict.fromkeys(["llada", "llada-moe", "dream", "llama-embed", "modern-bert", "neo-bert", "nomic-bert"], BOTH_WAYS),
    **dict.fromkeys(["nomic-bert-moe", "rnd1"], BOTH_WAYS),
    **dict.fromkeys(
        ["arwkv7", "bailingmoe3", "kimi-linear", "minimax-01", "qwen35", "qwen35moe", "qwen3next"], RECURRENT
    ),
    **dict.fromkeys(["rwkv6", "rwkv6qwen2", "rwkv7"], RECURRENT),
    **dict.fromkeys(
        ["falcon-h1", "granitehybrid", "jamba", "mamba", "mamba2", "nemotron_h", "nemotron_h_moe", "plamo2"], STATES
    ),
    **dict.fromkeys(["deepseek2", "deepseek2-ocr", "minicpm3", "mistral4", "plm"], LATENT),
    **dict.fromkeys(["deepseek32", "deepseek4", "glm-dsa"], f"{LATENT}, and {SPARSE}"),
    **dict.fromkeys(["t5", "t5encoder", "wavtokenizer-dec"], WITH_ENCODER),
    **dict.fromkeys(["lfm2", "lfm2moe"], "convolution layers"),
    "apertus": "the xIELU activation",
    "clip": "only the encoder of images",
    "cogvlm": "matrices of their own for images",
    "deci": "layers that differ in their number of heads",
    "gemma3n": "several residual streams",
    "gemma4": "layers that share keys and values, and proportional rotary",
    "llama4": "chunked attention",
    "openelm": "layers that differ in their number of heads",
    "phimoe": "sparse-mixer routing",
}
"""By what `general.architecture` says."""
NO_GRAPH = ("gptj",)
"""Architectures that llama.cpp has a name for, and no graph."""


def why_not(name: str) -> str:
    """Why files of an architecture that is not in the table are not opened: a clause for a message; empty where llama.cpp may not know
    it either.
    """
    if name in REASONS:
        return f"such models have {REASONS[name]}, which the equations do not express"
    if name in NO_GRAPH:
        return "llama.cpp has a name for it and no graph, so it cannot run it either"
    return ""
