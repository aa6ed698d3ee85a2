"""From a source to a session: a checkpoint directory, the name of a model on the hub, or a GGUF file. What a model computes is read off it as
it runs: no architecture is described here.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen

from llmtrace.errors import ModelOpenError, UnsupportedModelError
from llmtrace.families.checkpoint import PICKLES
from llmtrace.fingerprint import fingerprint
from llmtrace.gguf_split import read_whole
from llmtrace.protocol import TraceSession
from llmtrace.schema.sites import Array
from llmtrace.trace import ModelInfo
from llmtrace_torch import gguf_model
from llmtrace_torch.directory import check
from llmtrace_torch.hub import fetch
from llmtrace_torch.loading import device_of, load, non_finite, settings_of
from llmtrace_torch.options import TorchOptions
from llmtrace_torch.tape.found import find
from llmtrace_torch.tape.session import TapedSession
from llmtrace_torch.tokenizer import open_tokenizer


@frozen
class Source:
    """All that is known of a model before it is loaded."""

    name: str
    path: Path
    """A directory, or a GGUF file."""
    kind: str
    """Its `model_type`, as transformers has it."""
    fingerprint: str
    weights: str
    """How the weights are stored, for people."""
    tensors: Mapping[str, Array] = field(factory=dict)
    """Tensors as the file has them, by name."""
    stored: Mapping[str, str] = field(factory=dict)
    """The type of each of the file's tensors, by the name of the parameter that it becomes."""
    gguf: Any = None
    """The config that transformers makes of a GGUF file; None for a directory."""
    notes: tuple[str, ...] = ()


def open_model(source: str, options: TorchOptions) -> TraceSession:
    """Open a model. Raises `ModelOpenError`, `UnsupportedModelError`, `OptionError`, with the culprit and the fix."""
    path = Path(source).expanduser()
    if not path.exists():
        path = fetch(source, options.revision, trust=options.trust_remote_code)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    known = _directory(source, path, options) if path.is_dir() else _gguf(source, path)
    device = device_of(options.device)
    loaded, said = load(known.name, known.path, options, known.gguf)
    model: Any = loaded
    try:
        model.to(device)
        found = find(model, known.kind, known.tensors, known.stored)
    except ModelOpenError as error:
        raise type(error)(
            f"{source}, a model of the type {known.kind!r:.60}, is not read as a decoder: {error}"
        ) from error
    except RuntimeError as error:  # out of memory, or a kernel that lacks this type or device
        raise ModelOpenError(f"{source} cannot be run as {model.dtype} on {device}: {error}") from error
    trust = options.trust_remote_code
    tokenizer, missing = open_tokenizer(known.path, gguf=known.gguf is not None, trust=trust)
    used = ("llmtrace-torch", "torch", "transformers", *(("gguf",) if known.gguf else ()))
    info = ModelInfo(
        source=source, backend="torch", runtime="PyTorch", versions={name: version(name) for name in used},
        fingerprint=known.fingerprint, weights=known.weights, device=device,
        settings=settings_of(model, experts=model._can_set_experts_implementation()),
        notes=(*known.notes, *said, *filter(None, [missing]), *found.notes, *non_finite(model)),
    )  # fmt: skip
    return TapedSession(model, found, info, tokenizer)


def _directory(source: str, path: Path, options: TorchOptions) -> Source:
    kind, tensors = check(source, path, trust=options.trust_remote_code)
    kinds = {name: tensors.dtype(name) for name in tensors}
    files = {path / "config.json", *(entry.path for entry in tensors.entries.values())}
    weights = ", ".join(dict.fromkeys(kinds.values()))
    return Source(source, path, kind, fingerprint(files), weights, tensors, kinds)


def _gguf(source: str, path: Path) -> Source:
    if path.suffix in PICKLES:
        raise ModelOpenError(
            f"{source} is a pickle, which can run code, so it is not opened: convert it to safetensors."
        )
    header = read_whole(path)
    if len(header.paths) > 1:
        raise UnsupportedModelError(
            f"{source} is the first of {len(header.paths)} parts, and transformers reads GGUF files of one: join them with llama.cpp's "
            "gguf-split --merge, or open it with the backend llamacpp, which reads them all."
        )
    try:
        config = gguf_model.config_of(header)
    except ImportError as error:
        raise ModelOpenError(
            "A GGUF file is read with the package gguf, which is not installed: pip install gguf."
        ) from error
    return Source(
        source, path, str(config.model_type), fingerprint([path]), f"{header.kinds}, dequantised",
        stored=gguf_model.sources(header, config), gguf=config, notes=gguf_model.unread(header),
    )  # fmt: skip
