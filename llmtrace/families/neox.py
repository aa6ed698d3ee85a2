"""Layer norms with rotary on a part of each head: GPT-NeoX (Pythia), Phi, StableLM, StarCoder 2, Nemotron, Cohere, GLM."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from llmtrace.families.blocks import parallel, sequential
from llmtrace.families.config import Config
from llmtrace.families.llama import COMMON
from llmtrace.families.native import Family, Native
from llmtrace.families.parts import (
    FULL,
    SLIDING,
    alike,
    attention,
    gated,
    layer_norm,
    layer_types,
    model,
    plain,
    rms,
    window,
    windowed,
)
from llmtrace.families.rows import (
    AT,
    ATTENTION,
    GATE_UP,
    LLAMA,
    PRE_NORMS,
    STREAM,
    THIRDS,
    Rows,
    fused,
    less_one,
    linear,
    norms,
)
from llmtrace.spec import ModelSpec, Norm, Unembedding


def gpt_neox(c: Config) -> ModelSpec:
    """Parallel branches with a norm each, or sequential ones."""
    norm = layer_norm(c.layer_norm_eps)
    wire = parallel if c.use_parallel_residual else sequential
    block = wire(attention(c), plain(c, c.intermediate_size, c.hidden_act), norm)
    return model(c, alike(c, block), norm)


def phi(c: Config) -> ModelSpec:
    """Parallel branches behind one norm, biases everywhere, the head's too; perhaps norms on q and k."""
    norm, a = layer_norm(c.layer_norm_eps), attention(c, biases="QKVO")
    if c.qk_layernorm:
        head = Norm(c.layer_norm_eps, centred=True, over="d_head", bias=True)
        a = evolve(a, q_norm=head, k_norm=head)
    block = parallel(a, plain(c, c.intermediate_size, c.hidden_act), norm, shared=True)
    return model(c, alike(c, block), norm, unembed=Unembedding(bias=True))


def stablelm(c: Config) -> ModelSpec:
    """Sequential, or parallel behind one norm; perhaps a norm of its own for every head of q and k."""
    norm, a = layer_norm(c.layer_norm_eps), attention(c, biases="QKV" if c.use_qkv_bias else "")
    if c.qk_layernorm:
        q = Norm(c.layer_norm_eps, centred=True, over="d_head", each="head")
        a = evolve(a, q_norm=q, k_norm=evolve(q, each="kv_head"))
    mlp = gated(c, bias=False)
    block = parallel(a, mlp, norm, shared=True) if c.use_parallel_residual else sequential(a, mlp, norm)
    return model(c, alike(c, block), norm)


def starcoder2(c: Config) -> ModelSpec:
    """A plain MLP, one switch for all biases, one window for all layers."""
    norm = layer_norm(c.norm_epsilon)
    a = evolve(attention(c, biases="QKVO" if c.use_bias else ""), window=window(c.sliding_window))
    mlp = plain(c, c.intermediate_size, c.hidden_act, bias=bool(c.use_bias))
    return model(c, alike(c, sequential(a, mlp, norm)), norm)


def nemotron(c: Config) -> ModelSpec:
    """A squared ReLU, layer-norm weights stored less one."""
    norm = layer_norm(c.norm_eps)
    mlp = plain(c, c.intermediate_size, c.hidden_act, bias=bool(c.mlp_bias))
    return model(c, alike(c, sequential(attention(c), mlp, norm)), norm)


def cohere(c: Config) -> ModelSpec:
    """Parallel branches behind one norm without bias, interleaved rotary, scaled logits; perhaps a norm for every head of q and k."""
    norm = layer_norm(c.layer_norm_eps, bias=False)
    a = attention(c, layout="interleaved")
    if c.get("use_qk_norm"):
        q = Norm(c.layer_norm_eps, centred=True, over="d_head", each="head")
        a = evolve(a, q_norm=q, k_norm=evolve(q, each="kv_head"))
    block = parallel(a, gated(c, bias=False), norm, shared=True)
    return model(c, alike(c, block), norm, unembed=Unembedding(c.logit_scale))


def cohere2(c: Config) -> ModelSpec:
    """Cohere with windows; the layers without one have no rotary embedding."""
    every = int(c.sliding_window_pattern)
    kinds = layer_types(c, lambda layer: SLIDING if (layer + 1) % every else FULL)
    norm, a = layer_norm(c.layer_norm_eps, bias=False), attention(c, layout="interleaved")
    attentions = [windowed(a, c, kind) if kind == SLIDING else evolve(a, rotary=None) for kind in kinds]
    blocks = [parallel(one, gated(c, bias=False), norm, shared=True) for one in attentions]
    return model(c, blocks, norm, unembed=Unembedding(c.logit_scale))


def glm(c: Config) -> ModelSpec:
    """Interleaved rotary on half of each head, gate and up in one tensor."""
    a = attention(c, biases="QKV" if c.attention_bias else "", layout="interleaved")
    return model(c, alike(c, sequential(a, gated(c, bias=False), rms(c))), rms(c))


def glm4(c: Config) -> ModelSpec:
    """GLM with norms after the branches too."""
    a = attention(c, biases="QKV" if c.attention_bias else "", layout="interleaved")
    return model(c, alike(c, sequential(a, gated(c, bias=False), rms(c), post=rms(c))), rms(c))


N = "gpt_neox.layers.L."
GPT_NEOX: Rows = (
    {
        "embed.W_E": Native("gpt_neox.embed_in.weight", "vocab d_model"),
        "unembed.W_U": Native("embed_out.weight", "vocab d_model"),
    }
    | norms({"blocks.L.ln1": N + "input_layernorm", "blocks.L.ln2": N + "post_attention_layernorm"})
    | norms({"ln_final": "gpt_neox.final_layer_norm"})
    | fused(N + "attention.query_key_value", THIRDS)
    | linear(N + "attention.", {"O": "dense"}, "attn")
    | linear(N + "mlp.", {"in": "dense_h_to_4h", "out": "dense_4h_to_h"}, "mlp")
)
PHI: Rows = (
    STREAM
    | PRE_NORMS
    | ATTENTION
    | linear(AT + "self_attn.", {"O": "dense"}, "attn")
    | linear(AT + "mlp.", {"in": "fc1", "out": "fc2"}, "mlp")
    | norms({"ln_final": "model.final_layernorm"})
    | norms(
        {"blocks.L.attn.q_norm": AT + "self_attn.q_layernorm", "blocks.L.attn.k_norm": AT + "self_attn.k_layernorm"},
        "d_head",
    )
)
STABLELM: Rows = LLAMA | {
    f"blocks.L.attn.{which}_norm.w": Native(f"{AT}self_attn.{which}_layernorm.norms.E.weight", "d_head")
    for which in "qk"
}
COHERE: Rows = LLAMA | {
    "blocks.L.attn.q_norm.w": Native(AT + "self_attn.q_norm.weight", "head d_head"),
    "blocks.L.attn.k_norm.w": Native(AT + "self_attn.k_norm.weight", "kv_head d_head"),
}
STARCODER2: Rows = STREAM | PRE_NORMS | ATTENTION | linear(AT + "mlp.", {"in": "c_fc", "out": "c_proj"}, "mlp")
GLM: Rows = STREAM | PRE_NORMS | ATTENTION | {"blocks.L.mlp.W_out": LLAMA["blocks.L.mlp.W_out"]} | GATE_UP
GLM4: Rows = GLM | norms(
    {"blocks.L.attn_post": AT + "post_self_attn_layernorm", "blocks.L.mlp_post": AT + "post_mlp_layernorm"}
)

LAYER_NORMED: dict[str, Any] = COMMON | {"layer_norm_eps": 1e-5}
COHERES: dict[str, Any] = LAYER_NORMED | {"logit_scale": 0.0625, "tie_word_embeddings": True}
GLMS: dict[str, Any] = COMMON | {
    "rms_norm_eps": 1.5625e-07, "num_key_value_heads": 2, "head_dim": 128, "attention_bias": True, "partial_rotary_factor": 0.5,
}  # fmt: skip
FAMILIES: dict[str, Family] = {
    "gpt_neox": Family(
        gpt_neox,
        GPT_NEOX,
        "gpt_neox.",
        LAYER_NORMED
        | {"hidden_act": "gelu", "attention_bias": True, "use_parallel_residual": True, "partial_rotary_factor": 0.25},
        {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"},
        unread=(r"\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)$",),
    ),
    "phi": Family(
        phi,
        PHI,
        defaults=LAYER_NORMED | {"hidden_act": "gelu_new", "qk_layernorm": False, "partial_rotary_factor": 0.5},
    ),
    "stablelm": Family(
        stablelm,
        STABLELM,
        defaults=LAYER_NORMED
        | {"num_key_value_heads": 32, "use_qkv_bias": False, "qk_layernorm": False, "use_parallel_residual": False}
        | {"partial_rotary_factor": 0.25},
    ),
    "starcoder2": Family(
        starcoder2,
        STARCODER2,
        defaults=COMMON
        | {"norm_epsilon": 1e-5, "hidden_act": "gelu_pytorch_tanh", "num_key_value_heads": 2, "sliding_window": None}
        | {"use_bias": True, "tie_word_embeddings": True},
    ),
    "nemotron": Family(
        nemotron,
        less_one(STREAM | PRE_NORMS | ATTENTION | linear(AT + "mlp.", {"in": "up_proj", "out": "down_proj"}, "mlp")),
        defaults=COMMON | {"norm_eps": 1e-5, "hidden_act": "relu2", "partial_rotary_factor": 0.5},
    ),
    "cohere": Family(cohere, COHERE, defaults=COHERES | {"rope_theta": 500000.0, "use_qk_norm": False}),
    "cohere2": Family(cohere2, LLAMA, defaults=COHERES | {"sliding_window": 4096, "sliding_window_pattern": 4}),
    "glm": Family(glm, GLM, defaults=GLMS),
    "glm4": Family(glm4, GLM4, defaults=GLMS),
}
