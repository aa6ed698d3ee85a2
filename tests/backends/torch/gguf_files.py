"""Tiny GGUF files of several architectures, written by the package gguf: random tensors under the names and shapes of the architecture.

What stands in them is no model that anybody trained, and need not be: it is compared with what transformers' own reader makes of it.
"""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

SIZES = {"vocab_size": 96, "hidden_size": 64, "num_attention_heads": 4}
DEEP = SIZES | {
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "tie_word_embeddings": False,
}
GPT = SIZES | {"n_layer": 2, "n_head": 4, "n_embd": 64}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": DEEP,
    "qwen2": DEEP | {"head_dim": 16},
    "qwen3": DEEP,
    "gemma2": DEEP | {"tie_word_embeddings": True},
    "bloom": SIZES | {"n_layer": 2, "n_head": 4},
    "falcon": SIZES
    | {
        "num_hidden_layers": 2,
        "num_kv_heads": 1,
        "multi_query": True,
        "new_decoder_architecture": False,
        "bias": False,
    },
    "nemotron": DEEP | {"head_dim": 16},
    "stablelm": DEEP | {"head_dim": 16},
}
"""Architecture to what transformers' config class is told."""
KINDS = ("Q8_0", "Q4_0", "Q4_1", "F16", "Q5_0", "Q5_1", "BF16", "F32")
"""Types that the package gguf can make."""


def skeleton(architecture: str) -> Any:
    """The model that transformers makes of such a file, without memory for its weights."""
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(architecture, **CONFIGS[architecture])
        )


def write(path: Path, architecture: str, seed: int = 0) -> None:
    """One file; its matrices take the kinds in turn, and what has one axis is F32."""
    c, model = CONFIGS[architecture], skeleton(architecture)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(c.get("intermediate_size", 256))
    writer.add_head_count(4)
    writer.add_head_count_kv(c.get("num_key_value_heads", c.get("num_kv_heads", 4)))
    writer.add_vocab_size(96)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_eps(1e-5)
    writer.add_layer_norm_rms_eps(1e-5)
    if "head_dim" in c:
        writer.add_rope_dimension_count(c["head_dim"])
        writer.add_key_length(c["head_dim"])
        writer.add_value_length(c["head_dim"])
    rng, kinds = np.random.default_rng(seed), cycle(KINDS)
    reader: Any = TENSOR_PROCESSORS.get(architecture, TensorProcessor)
    names = get_gguf_hf_weights_map(model, reader(config=model.config.to_dict()))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name, native in names.items():
        if native not in shapes or (native == "lm_head.weight" and model.config.tie_word_embeddings):
            continue
        data = rng.normal(size=shapes[native]).astype(np.float32)
        kind = gguf.GGMLQuantizationType[next(kinds) if data.ndim == 2 else "F32"]
        writer.add_tensor(name, gguf.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
