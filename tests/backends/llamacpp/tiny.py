"""Tiny models as GGUF files, and what llama.cpp itself makes of one: its logits, by the fewest calls that give them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from attrs import frozen

from llmtrace.families import spec_of
from llmtrace.schema.evaluate import Equations
from llmtrace.schema.steps import needed
from llmtrace.spec import ModelSpec
from llmtrace.testing import TinyModel, tiny_model
from llmtrace.testing.tiny import TINY
from llmtrace_llamacpp.layout import GPU_LAYERS, patch
from llmtrace_llamacpp.library import load
from llmtrace_llamacpp.log import last_words
from llmtrace_llamacpp.weights import open_gguf
from llmtrace_llamacpp.writing import ARCHITECTURE_OF, write_gguf

__all__ = ["Changed", "changed", "computed", "llama_cpp", "off", "tiny_gguf", "write_gguf"]


STRETCHED = {"rope_type": "linear", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip
LONG = {
    "rope_type": "longrope",
    "short_factor": [1 + 0.1 * i for i in range(8)],
    "long_factor": [2.0] * 8,
    "factor": 4.0,
}
MODELS = {
    **{family: (family, {}) for family in ARCHITECTURE_OF},
    "arcee": ("arcee", {"attention_bias": False, "mlp_bias": False}),
    "cohere": ("cohere", {"attention_bias": False, "use_qk_norm": False}),
    "dots1": ("dots1", {"attention_bias": False, "num_key_value_heads": 4}),
    "ernie4_5": ("ernie4_5", {"use_bias": False}),
    "exaone4": ("exaone4", {"head_dim": 16}),
    "falcon": ("falcon", {"alibi": False}),
    "glm4_moe without norms": ("glm4_moe", {"use_qk_norm": False}),
    "falcon of two norms": ("falcon", {"alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "glm": ("glm", {"head_dim": 16}),
    "gpt2": ("gpt2", {"scale_attn_by_inverse_layer_idx": False}),
    "gpt_neox in sequence": ("gpt_neox", {"use_parallel_residual": False}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", {"attention_bias": False}),
    "nemotron": ("nemotron", {"head_dim": 16}),
    "olmo": ("olmo", {"attention_bias": False}),
    "olmo2": ("olmo2", {"attention_bias": False}),
    "olmoe": ("olmoe", {"num_key_value_heads": 4}),
    "phi": ("phi", {"qk_layernorm": False}),
    "qwen3": ("qwen3", {"attention_bias": False}),
    "stablelm in parallel": ("stablelm", {"use_parallel_residual": True}),
    "a tied llama": ("llama", {"tie_word_embeddings": True}),
    "linear": ("llama", {"rope_scaling": STRETCHED}),
    "yarn": ("llama", {"rope_scaling": YARN}),
    "llama 3": ("llama", {"rope_scaling": LLAMA3}),
    "longrope": ("phi3", {"rope_scaling": LONG, "original_max_position_embeddings": 512}),
    "of whole blocks": (
        "llama",
        {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64, "attention_bias": False, "mlp_bias": False},
    ),
}
"""What llama.cpp opens: without the biases and norms of the kit's models that no published file of the architecture has."""


@frozen
class Changed:
    """A tiny model with another spec than its family's, and random weights."""

    spec: ModelSpec
    weights: dict[str, np.ndarray]
    tokens: tuple[int, ...] = (5, 17, 3, 88, 41, 41, 9, 2, 60, 33, 7, 12)


def changed(family: str, **overrides: object) -> Changed:
    """With other keys in its config than the kit's tiny model has."""
    spec = spec_of({"model_type": family, **TINY[family], **overrides})
    random = np.random.default_rng(0)
    weights = {}
    for weight, _ in needed(spec):
        spread = 0.3 if len(weight.shape) == 1 else 0.06
        noise = float(weight.name.endswith(".w")) + spread * random.normal(size=weight.shape)
        weights[weight.name] = noise.astype(np.float32)
    if spec.unembed.tied:
        weights["unembed.W_U"] = weights["embed.W_E"].T
    return Changed(spec, weights)


def tiny_gguf(family: str, directory: Path, kind: str = "F32") -> tuple[TinyModel, Path]:
    """A tiny model, and the file of it."""
    model = tiny_model(family, directory / family)
    return model, write_gguf(model, directory / f"{family}.gguf", kind)


def llama_cpp(path: Path, tokens: tuple[int, ...]) -> np.ndarray:
    """llama.cpp's logits [token, vocab]: one pass, no flash attention, keys and values in float32."""
    library = load()
    api, count = library.api, len(tokens)
    parameters = api.llama_model_default_params()
    struct.pack_into("<i", parameters.raw, GPU_LAYERS, 0)
    model = api.llama_model_load_from_file(str(path).encode(), parameters)
    assert model, last_words()
    settings = api.llama_context_default_params()
    wanted = {"n_ctx": 256, "n_batch": 256, "n_ubatch": 256, "n_threads": 1, "n_threads_batch": 1, "flash_attn": 0}
    for name, value in (wanted | {"type_k": 0, "type_v": 0, "offload_kqv": 0, "op_offload": 0, "swa_full": 1}).items():
        patch(settings, library.layout[name], value)
    context = api.llama_init_from_model(model, settings)
    assert context, last_words()
    batch = api.llama_batch_init(count, 0, 1)
    batch.n_tokens = count
    for place, token in enumerate(tokens):
        batch.token[place], batch.pos[place], batch.n_seq_id[place], batch.logits[place] = token, place, 1, 1
        batch.seq_id[place][0] = 0
    assert api.llama_decode(context, batch) == 0
    vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
    logits = np.ctypeslib.as_array(api.llama_get_logits(context), (count, vocab)).copy()
    api.llama_batch_free(batch)
    api.llama_free(context)
    api.llama_model_free(model)
    return logits


def computed(path: Path, tokens: tuple[int, ...]) -> np.ndarray:
    """The logits that follow from the file's spec and weights by the equations, in float64."""
    found = open_gguf(path)
    equations = Equations(found.spec, found.weights, np.float64)
    inputs = {"tokens": np.array(tokens), "positions": np.arange(len(tokens))}
    return dict(equations.run(inputs, {"logits"}))["logits"]


def off(path: Path, tokens: tuple[int, ...]) -> float:
    """How far the two are from each other, relative to the largest logit."""
    ours, theirs = computed(path, tokens), llama_cpp(path, tokens)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
