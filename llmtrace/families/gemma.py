"""Gemma 1 to 3: norms stored less one, scaled embeddings; then sandwich norms, softcaps, windows, a rotary base for each kind of layer."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from llmtrace.families.blocks import sequential
from llmtrace.families.config import Config
from llmtrace.families.llama import COMMON
from llmtrace.families.native import Family
from llmtrace.families.parts import (
    FULL,
    SLIDING,
    act,
    alike,
    attention,
    head_normed,
    layer_types,
    model,
    refuse,
    rms,
    windowed,
)
from llmtrace.families.rows import ATTENTION, HEAD_NORMS, LLAMA, MLP, SANDWICH, STREAM, less_one
from llmtrace.spec import Embedding, GatedMlp, ModelSpec, Unembedding


def gemma(c: Config) -> ModelSpec:
    """Llama with a scaled embedding. The `gelu` of its first configs always meant the tanh form."""
    _causal(c)
    named = "gelu_pytorch_tanh" if c.hidden_act == "gelu" else c.hidden_act
    mlp = GatedMlp(c.intermediate_size, act(c, named))
    return model(c, alike(c, sequential(attention(c), mlp, rms(c))), rms(c), embed=Embedding(c.hidden_size**0.5))


def gemma2(c: Config) -> ModelSpec:
    """Norms before and after, softcaps, every other layer windowed."""
    return _sandwich(c, layer_types(c, lambda layer: FULL if layer % 2 else SLIDING), by_kind=False)


def gemma3(c: Config) -> ModelSpec:
    """Norms on q and k; windowed layers turn q and k by another base."""
    refuse(c, attn_logit_softcapping=None)  # transformers carries the key and does not apply it
    every = int(c.sliding_window_pattern)
    return _sandwich(c, layer_types(c, lambda layer: SLIDING if (layer + 1) % every else FULL), by_kind=True)


def vaultgemma(c: Config) -> ModelSpec:
    """Gemma 2 without norms after the branches."""
    kinds = layer_types(c, lambda layer: FULL if layer % 2 else SLIDING)
    return _sandwich(c, kinds, by_kind=False, post=False)


def _sandwich(c: Config, kinds: list[str], *, by_kind: bool, post: bool = True) -> ModelSpec:
    _causal(c)
    mlp = GatedMlp(c.intermediate_size, act(c, c.hidden_activation))
    blocks = []
    for kind in kinds:
        theta = "rope_local_base_freq" if by_kind and kind == SLIDING else "rope_theta"
        a = attention(c, kind=kind if by_kind else "", theta=theta)
        a = evolve(a, scale=c.query_pre_attn_scalar**-0.5, softcap=c.attn_logit_softcapping)
        a = windowed(head_normed(a, c.rms_norm_eps) if by_kind else a, c, kind)
        blocks.append(sequential(a, mlp, rms(c), post=rms(c) if post else None))
    embed, unembed = Embedding(c.hidden_size**0.5), Unembedding(softcap=c.final_logit_softcapping)
    return model(c, blocks, rms(c), embed=embed, unembed=unembed)


def _causal(c: Config) -> None:
    if c.get("use_bidirectional_attention"):
        refuse(c, use_bidirectional_attention=False)


TIED: dict[str, Any] = COMMON | {"tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh", "head_dim": 256}
GEMMA2: dict[str, Any] = TIED | {
    "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256, "sliding_window": 4096, "num_key_value_heads": 4,
    "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0,
}  # fmt: skip
GEMMA3: dict[str, Any] = GEMMA2 | {
    "final_logit_softcapping": None, "attn_logit_softcapping": None, "sliding_window_pattern": 6, "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0, "num_attention_heads": 8, "vocab_size": 262208, "max_position_embeddings": 131072,
}  # fmt: skip
SANDWICHED = less_one(STREAM | ATTENTION | MLP | SANDWICH)
GEMMA3_ROWS = SANDWICHED | less_one(HEAD_NORMS)
FAMILIES: dict[str, Family] = {
    "gemma": Family(gemma, less_one(LLAMA), defaults=TIED | {"num_key_value_heads": 16}),
    "gemma2": Family(gemma2, SANDWICHED, defaults=GEMMA2),
    "vaultgemma": Family(vaultgemma, SANDWICHED, defaults=GEMMA2),
    "gemma3_text": Family(
        gemma3, GEMMA3_ROWS, defaults=GEMMA3, spellings={"sliding_window_pattern": "_sliding_window_pattern"}
    ),
    "gemma3": Family(
        gemma3,
        GEMMA3_ROWS,
        defaults=GEMMA3,
        spellings={"sliding_window_pattern": "_sliding_window_pattern"},
        part="text_config",
        renames=((r"^language_model\.", ""), (r"^model\.language_model\.", "model.")),
        unread=(r"^(model\.)?(vision_tower|multi_modal_projector)\.",),
    ),
}
