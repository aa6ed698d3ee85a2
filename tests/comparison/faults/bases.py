"""The tiny models that faults are planted in: what their families' published models have, so that every runtime opens them.

**Loud**: matrices are larger than the kit's, as attention that is nearly uniform agrees with one of another scale.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from llmtrace.testing.tiny import write_tiny
from tests.comparison.faults.fault import Fault, Tensors

READS = "llama with a tokenizer"
TEXT = "Another model, then the other one."
"""Its prompt."""
LOUD = 2.5
"""Times the kit's."""
BASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"attention_bias": False, "mlp_bias": False}),
    "mistral": ("mistral", {}),
    "qwen2": ("qwen2", {"use_sliding_window": False}),
    "qwen3": ("qwen3", {"attention_bias": False}),
    "gemma2": ("gemma2", {"query_pre_attn_scalar": 24}),
    "granite": ("granite", {"attention_bias": False, "mlp_bias": False}),
    "mixtral": ("mixtral", {"sliding_window": None}),
    "qwen3_moe": ("qwen3_moe", {"norm_topk_prob": True}),
    "gpt2": ("gpt2", {"scale_attn_by_inverse_layer_idx": False}),
    "gpt_neox": ("gpt_neox", {}),
    "gemma3_text": ("gemma3_text", {"query_pre_attn_scalar": 24, "num_hidden_layers": 6, "sliding_window_pattern": 6}),
    "phi3": ("phi3", {"sliding_window": None}),
    "olmo2": ("olmo2", {"attention_bias": False}),
    "cohere": ("cohere", {"attention_bias": False, "use_qk_norm": False}),
    "starcoder2": ("starcoder2", {"sliding_window": None}),
    "gpt_oss": ("gpt_oss", {"swiglu_limit": 0.8}),
    "qwen2_moe": ("qwen2_moe", {"shared_expert_intermediate_size": 64}),
    "bloom": ("bloom", {}),
    "opt": ("opt", {}),
    READS: ("llama", {"attention_bias": False, "mlp_bias": False}),
}
"""Name to family, and keys of its config that are not the kit's."""
PROMPT = [5, 17, 3, 88, 41, 41, 9, 60, 2, 33, 5, 17, 7, 12, 96, 0, 71, 54, 23, 8, 64, 30]
"""Longer than every window of the bases."""


def write_base(name: str, directory: Path) -> Path:
    """A checkpoint, always the same."""
    family, overrides = BASES[name]
    write_tiny(family, directory, **overrides)

    def louder(tensors: Tensors) -> None:
        for each, array in tensors.items():
            if array.ndim > 1:
                tensors[each] = LOUD * array

    _edit_tensors(directory, louder)
    if name == READS:
        _write_tokenizer(directory)
    return directory


def prompts(base: str) -> list[Any]:
    """What a base is run on."""
    return [TEXT] if base == READS else [PROMPT]


def _write_tokenizer(directory: Path) -> None:
    """A mark that begins a text, the characters of ASCII, and one pair of them."""
    letters = ["Ġ" if character == " " else character for character in map(chr, range(32, 127))]
    vocab = {letter: place for place, letter in enumerate(["<bos>", *letters, "th"])}
    inner = Tokenizer(models.BPE(vocab, [("t", "h")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken("<bos>", special=True)])
    inner.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 0)])
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<bos>").save_pretrained(directory)


def plant(fault: Fault, base: Path, directory: Path) -> Path:
    """A copy of a base with what is wrong in its files."""
    shutil.copytree(base, directory)
    if fault.config is not None:
        _edit_json(directory / "config.json", fault.config)
    if fault.tokenizer is not None:
        _edit_json(directory / "tokenizer.json", fault.tokenizer)
    if fault.tensors is not None:
        _edit_tensors(directory, fault.tensors)
    return directory


def _edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(path.read_text("utf-8"))
    before = json.dumps(document)
    change(document)
    if json.dumps(document) == before:
        raise ValueError(f"The fault leaves {path.name} as it is.")
    path.write_text(json.dumps(document), "utf-8")


def _edit_tensors(directory: Path, change: Callable[[Tensors], None]) -> None:
    path = directory / "model.safetensors"
    tensors = {name: array.copy() for name, array in load_file(path).items()}
    change(tensors)
    save_file({name: array.copy() for name, array in tensors.items()}, path, metadata={"format": "pt"})
