"""A GGUF file as transformers reads it: its config, its tensors under native names, and which of the file's tensors each comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
    load_gguf_checkpoint,
)

from llmtrace.errors import ModelOpenError, UnsupportedModelError
from llmtrace.families.native import Family, native_of
from llmtrace.families.weights import stored_as
from llmtrace.gguf_header import Header
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import needed
from llmtrace.spec import ModelSpec
from llmtrace_torch.arrays import as_numpy
from llmtrace_torch.quiet import quiet

FUSED = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
"""Tensors of all experts [expert out in], and the matrices that stand one below the other in each."""
LACKS = ("is not supported", "does not recognize")
"""How transformers says that it does not know an architecture."""
BLOCK = re.compile(r"(?:^|\.)blk\.(\d+)\.")
UNREAD = {
    "rope_freqs.weight": "the file stretches its rotary frequencies by a table (rope_freqs), which transformers does not read"
}
"""Tensors that transformers' reader leaves out, and what to say of it."""


@contextmanager
def alone(path: Path) -> Iterator[Path]:
    """A directory with nothing but the file in it: transformers asks the files beside it too (`tokenizer_config.json`, `auto_map`).

    While this is entered, its reader is quick.
    """
    from llmtrace_torch.gguf_quick import quick  # a directory is opened without the package gguf

    with quick(), TemporaryDirectory(prefix="llmtrace-") as directory:
        (Path(directory) / path.name).symlink_to(path.absolute())
        yield Path(directory)


def config_of(header: Header) -> Any:
    """The file's config, as transformers makes it of its metadata.

    Raises `UnsupportedModelError` for an architecture that its reader lacks, `ModelOpenError` for metadata that make no model.
    """
    architecture = str(header.metadata["general.architecture"])
    _check_layers(header, architecture)
    try:
        with quiet(), alone(header.path) as directory:
            return transformers.AutoConfig.from_pretrained(
                directory, gguf_file=header.path.name, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # transformers raises whatever it meets
        if isinstance(error, NotImplementedError) or any(words in str(error) for words in LACKS):
            raise UnsupportedModelError(
                f"transformers cannot read the GGUF file {header.path}: its reader lacks {architecture!r:.60}. The backend llamacpp may."
            ) from error
        raise ModelOpenError(f"{header.path} has metadata that transformers cannot use: {_line(error)}") from error


def _check_layers(header: Header, architecture: str) -> None:
    """What is announced is there, before anything is made for each layer."""
    announced = header.metadata.get(f"{architecture}.block_count")
    there = {found[1] for found in map(BLOCK.search, header.tensors) if found}
    if type(announced) is not int or not 0 < announced <= len(there):
        raise ModelOpenError(
            f"{header.path} says {architecture!r:.60}.block_count = {announced!r}, and has tensors of {len(there)} blocks."
        )


def _line(error: Exception) -> str:
    """An error of several lines as one."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def skeleton(config: Any) -> PreTrainedModel:
    """The model without memory for its weights: only its names and shapes."""
    with quiet(), torch.device("meta"):
        model: PreTrainedModel = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return model


def tensors_of(path: Path, config: Any) -> dict[str, Array]:
    """Every tensor of the file, dequantised to float32, by its native name: read from the file, not from a running model."""
    with quiet(), alone(path) as directory:
        found = load_gguf_checkpoint(
            str(directory / path.name), return_tensors=True, model_to_load=skeleton(config), torch_dtype=torch.float32
        )
    tensors: Mapping[str, torch.Tensor] = found["tensors"]
    return {own: array for name, tensor in tensors.items() for own, array in _apart(name, as_numpy(tensor))}


def _apart(name: str, array: Array) -> Iterator[tuple[str, Array]]:
    """A tensor by its name in a checkpoint: transformers' reader hands out the experts of a Qwen fused, as they are in memory."""
    if array.ndim != 3 or not name.endswith(tuple(FUSED)):
        yield name, array
        return
    stem, _, fused = name.rpartition(".")
    for expert, matrix in enumerate(array):
        for part, piece in zip(FUSED[fused], np.split(matrix, len(FUSED[fused])), strict=True):
            yield f"{stem}.{expert}.{part}.weight", piece


def sources(header: Header, config: Any) -> dict[str, str]:
    """Native name to the storage type of the tensor that it comes from; of experts, that of the first."""
    architecture = str(header.metadata["general.architecture"])
    kind: Any = TENSOR_PROCESSORS.get(architecture, TensorProcessor)
    processor = kind(config=config.to_dict())
    with quiet(), alone(header.path):
        names: dict[str, str] = get_gguf_hf_weights_map(skeleton(config), processor)
    found: dict[str, str] = {}
    for name, native in names.items():
        if name in header.tensors:
            stem, _, last = native.rpartition(".")
            fused = [f"{stem}.0.{part}.weight" for part in FUSED.get(last, ())]
            found |= dict.fromkeys([native, *fused], header.tensors[name].kind)
    return found


def stored(spec: ModelSpec, family: Family, kinds: Mapping[str, str]) -> dict[str, str]:
    """Schema weight to storage type, where it is one tensor of the file."""
    found: dict[str, str] = {}
    for weight, _ in needed(spec):
        kind = kinds.get(native_of(family, stored_as(spec, weight.name))[1][0])
        if kind is not None:
            found[weight.name] = kind
    return found


def unread(header: Header) -> tuple[str, ...]:
    """What to say of tensors that transformers' reader leaves out."""
    return tuple(text for name, text in UNREAD.items() if name in header.tensors)
