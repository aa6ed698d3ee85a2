"""Families with ALiBi (arXiv 2108.12409): Falcon, which may also be rotary, BLOOM and MPT."""

from __future__ import annotations

import math
from typing import Any

from attrs import evolve

from llmtrace.errors import UnsupportedModelError, shown
from llmtrace.families.blocks import parallel, sequential
from llmtrace.families.config import Config
from llmtrace.families.native import Family, Native
from llmtrace.families.parts import alike, layer_norm, model, plain, refuse
from llmtrace.families.rope import rotary
from llmtrace.families.rows import SLOTS, THIRDS, Rows, fused, linear, norms
from llmtrace.spec import Attention, Embedding, ModelSpec


def slopes(heads: int) -> list[float]:
    """Geometric for a power of two; else the rest from every other one of twice as many (arXiv 2108.12409, §3)."""
    whole = 2 ** math.floor(math.log2(heads))
    ladder = [2.0 ** (-8 * (i + 1) / whole) for i in range(whole)]
    between = [2.0 ** (-4 * (i + 1) / whole) for i in range(0, 2 * (heads - whole), 2)]
    return ladder + between


def mpt_slopes(heads: int) -> list[float]:
    """Every other one of the next power of two, then those between."""
    whole = 2 ** math.ceil(math.log2(heads))
    ladder = [2.0 ** (-8 * (i + 1) / whole) for i in range(whole)]
    return ladder if whole == heads else (ladder[1::2] + ladder[::2])[:heads]


def falcon(c: Config) -> ModelSpec:
    """Scores are `(q·k + alibi) · scale`: as added after scaling, a slope is `slope · scale`."""
    heads, width = int(c.num_attention_heads), int(c.hidden_size // c.num_attention_heads)
    scale, biases = width**-0.5, "QKVO" if c.bias else ""
    kv_heads = int(c.get("num_kv_heads") or heads) if c.new_decoder_architecture else 1 if c.multi_query else heads
    if c.alibi:
        a = Attention(
            heads, kv_heads, width, width, scale, slopes=tuple(s * scale for s in slopes(heads)), biases=biases
        )
    else:
        a = Attention(heads, kv_heads, width, width, scale, rotary(c, width), biases=biases)
    norm = layer_norm(c.layer_norm_epsilon)
    mlp = plain(c, c.get("ffn_hidden_size") or 4 * c.hidden_size, c.activation, bias=bool(c.bias))
    if c.new_decoder_architecture and not c.parallel_attn:
        raise UnsupportedModelError(
            "falcon with new_decoder_architecture and without parallel_attn is not expressed by the equations."
        )
    block = parallel(a, mlp, norm, shared=not _two_norms(c)) if c.parallel_attn else sequential(a, mlp, norm)
    return model(c, alike(c, block), norm, limited=not c.alibi)


def _two_norms(c: Config) -> bool:
    """Whether the parallel branches have a norm each."""
    return bool(c.new_decoder_architecture and (c.get("num_ln_in_parallel_attn") or 2) == 2)


def _falcon(c: Config) -> Rows:
    """How q, k and v are fused, and what the norms are called, depends on the generation."""
    axes = GROUPS if c.new_decoder_architecture else SLOTS if c.multi_query else THIRDS
    named = FALCON | fused(F + "self_attention.query_key_value", axes)
    return named | norms({"blocks.L.ln1": F + "ln_attn", "blocks.L.ln2": F + "ln_mlp"}) if _two_norms(c) else named


def bloom(c: Config) -> ModelSpec:
    """A norm on the embedding, ALiBi, q, k and v head by head."""
    refuse(c, apply_residual_connection_post_layernorm=False)
    heads, width = int(c.num_attention_heads), int(c.hidden_size // c.num_attention_heads)
    norm = layer_norm(c.layer_norm_epsilon)
    a = Attention(heads, heads, width, width, width**-0.5, slopes=tuple(slopes(heads)), biases="QKVO")
    block = sequential(a, plain(c, 4 * c.hidden_size, "gelu_new"), norm)
    return model(c, alike(c, block), norm, embed=Embedding(norm=norm), limited=False)


def mpt(c: Config) -> ModelSpec:
    """Layer norms without bias, ALiBi, perhaps clipped q, k and v."""
    own = Config(c.get("attn_config") or {}, {"clip_qkv": None, "softmax_scale": None})
    refuse(c, no_bias=True, logit_scale=None, expansion_ratio=4)
    for key, only in MPT_ONLY.items():
        if own.get(key, only) != only:
            raise UnsupportedModelError(
                f"mpt with attn_config.{key}={shown(own[key])} is not expressed by the equations, only {only!r}."
            )
    heads, width = int(c.num_attention_heads), int(c.hidden_size // c.num_attention_heads)
    a = Attention(
        heads,
        heads,
        width,
        width,
        own.softmax_scale or width**-0.5,
        slopes=tuple(mpt_slopes(heads)),
    )
    norm = layer_norm(c.layer_norm_epsilon, bias=False)
    block = sequential(evolve(a, clip=own.clip_qkv or None), plain(c, 4 * c.hidden_size, "gelu", bias=False), norm)
    return model(c, alike(c, block), norm)


MPT_ONLY = {"qk_ln": False, "prefix_lm": False, "alibi": True, "alibi_bias_max": 8, "attn_type": "multihead_attention"}
"""Other values transformers either ignores or refuses."""
F = "transformer.h.L."
GROUPS = {
    "Q": "(head:kv_head head:group|1|1 d_head)",
    "K": "(kv_head group|1|1 d_head)",
    "V": "(kv_head group|1|1 d_value)",
}
"""Group by group: its queries, its key, its value."""
ENDS: Rows = {
    "embed.W_E": Native("transformer.word_embeddings.weight", "vocab d_model"),
    "unembed.W_U": Native("lm_head.weight", "vocab d_model"),
} | norms({"embed": "transformer.word_embeddings_layernorm", "ln_final": "transformer.ln_f"})  # fmt: skip
FALCON: Rows = (
    ENDS
    | norms({"blocks.L.ln1": F + "input_layernorm", "blocks.L.ln2": F + "post_attention_layernorm"})
    | linear(F + "self_attention.", {"O": "dense"}, "attn")
    | linear(F + "mlp.", {"in": "dense_h_to_4h", "out": "dense_4h_to_h"}, "mlp")
    | fused(F + "self_attention.query_key_value", SLOTS)
)
BLOOM: Rows = FALCON | fused(F + "self_attention.query_key_value", THIRDS)
MPT: Rows = (
    {
        "embed.W_E": Native("transformer.wte.weight", "vocab d_model"),
        "unembed.W_U": Native("lm_head.weight", "vocab d_model"),
    }
    | fused("transformer.blocks.L.attn.Wqkv", SLOTS)
    | linear("transformer.blocks.L.attn.", {"O": "out_proj"}, "attn")
    | linear("transformer.blocks.L.ffn.", {"in": "up_proj", "out": "down_proj"}, "mlp")
    | norms({"blocks.L.ln1": "transformer.blocks.L.norm_1", "blocks.L.ln2": "transformer.blocks.L.norm_2"})
    | norms({"ln_final": "transformer.norm_f"})
)
TIED: dict[str, Any] = {"layer_norm_epsilon": 1e-5, "tie_word_embeddings": True}
FAMILIES: dict[str, Family] = {
    "falcon": Family(
        falcon,
        FALCON,
        "transformer.",
        TIED
        | {"alibi": False, "new_decoder_architecture": False, "multi_query": True, "parallel_attn": True, "bias": False}
        | {"activation": "gelu", "rope_theta": 10000.0, "max_position_embeddings": 2048},
        {
            "hidden_size": "n_embed",
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "num_kv_heads": "n_head_kv",
        },
        variant=_falcon,
        unread=(r"\.inv_freq$",),
    ),
    "bloom": Family(
        bloom,
        BLOOM,
        "transformer.",
        TIED | {"apply_residual_connection_post_layernorm": False},
        {"hidden_size": "n_embed", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"},
    ),
    "mpt": Family(
        mpt,
        MPT,
        "transformer.",
        TIED,
        {"hidden_size": "d_model", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
        | {"max_position_embeddings": "max_seq_len"},
    ),
}
