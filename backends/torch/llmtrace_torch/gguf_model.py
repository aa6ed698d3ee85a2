"""A GGUF file as transformers reads it: its config, and which of the file's tensors each parameter comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
)

from llmtrace.errors import ModelOpenError, UnsupportedModelError
from llmtrace.gguf_header import Header
from llmtrace_torch.quiet import quiet

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


def sources(header: Header, config: Any) -> dict[str, str]:
    """Parameter to the storage type of the tensor that it comes from."""
    architecture = str(header.metadata["general.architecture"])
    kind: Any = TENSOR_PROCESSORS.get(architecture, TensorProcessor)
    processor = kind(config=config.to_dict())
    with quiet(), alone(header.path):
        names: dict[str, str] = get_gguf_hf_weights_map(skeleton(config), processor)
    return {native: header.tensors[name].kind for name, native in names.items() if name in header.tensors}


def unread(header: Header) -> tuple[str, ...]:
    """What to say of tensors that transformers' reader leaves out."""
    return tuple(text for name, text in UNREAD.items() if name in header.tensors)
