"""The GPT-2 kin: learned positions and plain MLPs (GPT-2, GPT-Neo, GPT-BigCode, OPT), or rotary and one norm (GPT-J, CodeGen)."""

from __future__ import annotations

from itertools import islice
from typing import Any

from attrs import evolve

from llmtrace.errors import UnsupportedModelError, shown
from llmtrace.families.blocks import parallel, sequential
from llmtrace.families.config import Config
from llmtrace.families.native import Family, Native
from llmtrace.families.parts import alike, layer_norm, model, plain, refuse, window
from llmtrace.families.rows import SLOTS, THIRDS, Rows, conv1d, fused, linear, norms
from llmtrace.spec import Attention, ModelSpec, Positions, Rotary, Unembedding


def _heads(c: Config, *, kv_heads: int | None = None, biases: str = "QKVO") -> Attention:
    """Attention without rotary, heads an equal share of the width."""
    heads, d_head = int(c.num_attention_heads), int(c.hidden_size // c.num_attention_heads)
    return Attention(heads, kv_heads or heads, d_head, d_head, d_head**-0.5, biases=biases)


def gpt2(c: Config) -> ModelSpec:
    """Learned positions, layer norms, a plain MLP."""
    refuse(c, add_cross_attention=False)
    norm = layer_norm(c.layer_norm_epsilon)
    mlp = plain(c, c.n_inner or 4 * c.hidden_size, c.activation_function)
    a = _heads(c, kv_heads=1 if c.get("multi_query") else None)
    a = a if c.scale_attn_weights else evolve(a, scale=1.0)
    by_layer = [
        a.scale / (layer + 1 if c.get("scale_attn_by_inverse_layer_idx") else 1) for layer in range(c.num_hidden_layers)
    ]
    blocks = [sequential(evolve(a, scale=scale), mlp, norm) for scale in by_layer]
    return model(c, blocks, norm, positions=Positions(c.max_position_embeddings))


def gpt_neo(c: Config) -> ModelSpec:
    """Unscaled scores; every other layer looks back only so far."""
    norm = layer_norm(c.layer_norm_epsilon)
    mlp = plain(c, c.intermediate_size or 4 * c.hidden_size, c.activation_function)
    a = evolve(_heads(c, biases="O"), scale=1.0)
    patterns = c.attention_types or [[["global", "local"], 12]]
    repeated = (kind for pattern, times in patterns if pattern for _ in range(times) for kind in pattern)
    kinds = c.get("attention_layers") or list(islice(repeated, c.num_hidden_layers + 1))  # one too many is too many
    if len(kinds) != c.num_hidden_layers or set(kinds) - {"global", "local"}:
        raise UnsupportedModelError(
            f"gpt_neo needs {c.num_hidden_layers} attention types, each global or local, not {shown(kinds)}."
        )
    windows = [window(c.window_size) if kind == "local" else None for kind in kinds]
    blocks = [sequential(evolve(a, window=one), mlp, norm) for one in windows]
    return model(c, blocks, norm, positions=Positions(c.max_position_embeddings))


def opt(c: Config) -> ModelSpec:
    """Learned positions from row 2 on. OPT-350m is refused: it norms the stream itself and projects its embedding."""
    if not c.do_layer_norm_before or c.get("word_embed_proj_dim", c.hidden_size) != c.hidden_size:
        raise UnsupportedModelError(
            "opt as in OPT-350m (do_layer_norm_before=False, projected embeddings) is not expressed by the equations."
        )
    refuse(c, layer_norm_elementwise_affine=True, _remove_final_layer_norm=False)
    norm = layer_norm(1e-5)
    a = _heads(c, biases="QKVO" if c.enable_bias else "")
    mlp = plain(c, c.ffn_dim, c.activation_function, bias=bool(c.enable_bias))
    positions = Positions(c.max_position_embeddings + 2, offset=2)
    return model(c, alike(c, sequential(a, mlp, norm)), norm, positions=positions)


def gptj(c: Config) -> ModelSpec:
    """Interleaved rotary on a part of each head; both branches behind one norm; a biased head."""
    norm = layer_norm(c.layer_norm_epsilon)
    a = _heads(c, biases="")
    if not c.rotary_dim or c.rotary_dim > a.d_head:
        raise UnsupportedModelError(
            f"{c.model_type} with rotary_dim={shown(c.rotary_dim)} for heads of {shown(a.d_head)} is not expressed."
        )
    a = evolve(a, rotary=Rotary(10000.0, c.rotary_dim, "interleaved"))
    mlp = plain(c, c.n_inner or 4 * c.hidden_size, c.activation_function)
    return model(c, alike(c, parallel(a, mlp, norm, shared=True)), norm, unembed=Unembedding(bias=True))


def _bigcode(c: Config) -> Rows:
    """With several key/value heads, q, k and v stand head by head."""
    return BIGCODE if c.multi_query else BIGCODE | fused(H + "attn.c_attn", THIRDS)


H = "transformer.h.L."
ENDS: Rows = {
    "embed.W_E": Native("transformer.wte.weight", "vocab d_model"),
    "pos_embed.W_pos": Native("transformer.wpe.weight", "position d_model"),
    "unembed.W_U": Native("lm_head.weight", "vocab d_model"),
    "unembed.b_U": Native("lm_head.bias", "vocab"),
}
NORMS: Rows = norms({"blocks.L.ln1": H + "ln_1", "blocks.L.ln2": H + "ln_2", "ln_final": "transformer.ln_f"})
UP_DOWN: Rows = linear(H + "mlp.", {"in": "c_fc", "out": "c_proj"}, "mlp")
OUT: Rows = linear(H + "attn.", {"O": "c_proj"}, "attn")
BIGCODE: Rows = ENDS | NORMS | fused(H + "attn.c_attn", SLOTS) | OUT | UP_DOWN
GPT2: Rows = ENDS | NORMS | fused(H + "attn.c_attn", SLOTS, weight="d_model {}") | conv1d(OUT | UP_DOWN)
FC: Rows = linear(H + "mlp.", {"in": "fc_in", "out": "fc_out"}, "mlp")
QKVO = {"Q": "q_proj", "K": "k_proj", "V": "v_proj", "O": "out_proj"}
GPTJ: Rows = ENDS | NORMS | FC | linear(H + "attn.", QKVO, "attn")
SHARDS = {
    letter: f"({head}:4 1|1|1 {head}:/4 {width})"
    for letter, head, width in (("Q", "head", "d_head"), ("K", "kv_head", "d_head"), ("V", "kv_head", "d_value"))
}
"""CodeGen's q, v and k in four shards, one for each core that it was trained on."""
D = "model.decoder.layers.L."
OPT: Rows = (
    {
        "embed.W_E": Native("model.decoder.embed_tokens.weight", "vocab d_model"),
        "pos_embed.W_pos": Native("model.decoder.embed_positions.weight", "position d_model"),
        "unembed.W_U": Native("lm_head.weight", "vocab d_model"),
    }
    | linear(D + "self_attn.", QKVO, "attn")
    | linear(D, {"in": "fc1", "out": "fc2"}, "mlp")
    | norms(
        {
            "blocks.L.ln1": D + "self_attn_layer_norm",
            "blocks.L.ln2": D + "final_layer_norm",
            "ln_final": "model.decoder.final_layer_norm",
        }
    )
)

SPELLINGS = {
    "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "max_position_embeddings": "n_positions",
}  # fmt: skip
GPT: dict[str, Any] = {
    "layer_norm_epsilon": 1e-5,
    "activation_function": "gelu_new",
    "n_inner": None,
    "tie_word_embeddings": True,
}
MASKS = (r"\.attn\.(attention\.)?(bias|masked_bias|causal_mask|embed_positions)$",)
FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        gpt2,
        GPT2,
        "transformer.",
        GPT | {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False},
        SPELLINGS,
        unread=MASKS,
    ),
    "gpt_bigcode": Family(
        gpt2,
        BIGCODE,
        "transformer.",
        GPT | {"scale_attn_weights": True, "multi_query": True, "activation_function": "gelu_pytorch_tanh"},
        SPELLINGS,
        variant=_bigcode,
        unread=MASKS,
    ),
    "gpt_neo": Family(
        gpt_neo,
        ENDS | NORMS | UP_DOWN | linear(H + "attn.attention.", QKVO, "attn"),
        "transformer.",
        GPT | {"intermediate_size": None, "window_size": 256, "attention_types": None},
        {"num_hidden_layers": "num_layers", "num_attention_heads": "num_heads"},
        unread=MASKS,
    ),
    "opt": Family(
        opt,
        OPT,
        defaults={
            "do_layer_norm_before": True, "activation_function": "relu", "enable_bias": True, "tie_word_embeddings": True,
        },
    ),
    "gptj": Family(gptj, GPTJ, "transformer.", GPT | {"tie_word_embeddings": False, "rotary_dim": 64}, SPELLINGS, unread=MASKS),
    "codegen": Family(
        gptj,
        GPTJ | fused(H + "attn.qkv_proj", SHARDS, order="QVK"),
        "transformer.",
        GPT | {"tie_word_embeddings": False, "rotary_dim": 64},
        SPELLINGS,
        unread=MASKS,
    ),
}  # fmt: skip
