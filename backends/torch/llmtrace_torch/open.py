"""From a source to a session: a checkpoint directory, the name of a model on the hub, or a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen
from transformers import PreTrainedModel

from llmtrace.errors import ModelOpenError, UnsupportedModelError
from llmtrace.families import family as family_of
from llmtrace.families import spec_of
from llmtrace.families.checkpoint import PICKLES, open_checkpoint
from llmtrace.families.native import Family
from llmtrace.families.weights import weights_from
from llmtrace.fingerprint import fingerprint
from llmtrace.gguf_split import read_whole
from llmtrace.protocol import TraceSession
from llmtrace.schema.sites import Array
from llmtrace.spec import ModelSpec
from llmtrace.trace import ModelInfo
from llmtrace_torch import gguf_model
from llmtrace_torch.by_running import open_by_running, unknown
from llmtrace_torch.falcon import alibi_twice
from llmtrace_torch.hub import fetch
from llmtrace_torch.loading import device_of, load, non_finite, settings_of
from llmtrace_torch.locate import choices, locate
from llmtrace_torch.offers import gaps, offers
from llmtrace_torch.options import TorchOptions
from llmtrace_torch.session import TorchSession
from llmtrace_torch.tokenizer import open_tokenizer
from llmtrace_torch.weights import Late, LateWeights


@frozen
class Source:
    """All that is known of a model before it is loaded."""

    name: str
    path: Path
    """A directory, or a GGUF file."""
    family: Family
    spec: ModelSpec
    weights: Mapping[str, Array]
    stored: Mapping[str, str]
    fingerprint: str
    kind: str
    """How the weights are stored, for people."""
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
    if path.is_dir() and (kind := unknown(path)):
        return open_by_running(source, path, kind, options)
    found = _directory(source, path, options) if path.is_dir() else _gguf(source, path)
    device = device_of(options.device)
    model: Any = load(found.name, found.path, options, found.gguf)
    try:
        model.to(device)
        located = locate(model, found.spec, found.family)
        twice = alibi_twice(model)
    except RuntimeError as error:  # out of memory, or a kernel that lacks this type or device
        raise ModelOpenError(f"{source} cannot be run as {model.dtype} on {device}: {error}") from error
    tokenizer, missing = open_tokenizer(found.path, gguf=found.gguf is not None, trust=options.trust_remote_code)
    notes = (
        *found.notes,
        *filter(None, (missing, twice, located.refused and f"{located.refused}: q and k after rotary are derived")),
    )
    info = _info(found, model, device)
    kernel = str(model.config._attn_implementation)
    return TorchSession(
        model, found.spec, evolve(info, notes=notes + non_finite(model)), tokenizer, located,
        offers(found.spec, located, device), gaps(found.spec, located, kernel), found.weights, found.stored,
    )  # fmt: skip


def _directory(source: str, path: Path, options: TorchOptions) -> Source:
    checkpoint = open_checkpoint(path)
    if checkpoint.config.get("auto_map") and not options.trust_remote_code:
        raise ModelOpenError(
            f"{source} brings Python code of its own (auto_map in config.json), which is not run. If you trust its author, open it "
            "with the option trust_remote_code=true."
        )
    kinds = dict.fromkeys(checkpoint.stored.values())
    return Source(
        source,
        path,
        checkpoint.family,
        checkpoint.spec,
        checkpoint.weights,
        checkpoint.stored,
        checkpoint.fingerprint,
        ", ".join(kinds),
    )


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
        from llmtrace_torch.gguf_tensors import packed  # it needs the package gguf, which a directory does not
    except ImportError as error:
        raise ModelOpenError(
            "A GGUF file is read with the package gguf, which is not installed: pip install gguf."
        ) from error
    config = gguf_model.config_of(header)
    try:
        family, spec = family_of(config.to_dict()), spec_of(config.to_dict())
    except ModelOpenError as error:
        raise type(error)(f"{path}, whose metadata transformers reads as a config.json: {error}") from error
    one_by_one = packed(spec, family, header, config)
    weights: Mapping[str, Array]
    if one_by_one is None:
        weights = LateWeights(spec, family, lambda: gguf_model.tensors_of(path, config), str(path))
        stored = Late(lambda: gguf_model.stored(spec, family, gguf_model.sources(header, config)))
    else:
        weights = weights_from(spec, family, one_by_one, str(path))
        stored = Late(
            lambda: gguf_model.stored(spec, family, {name: one.info.kind for name, one in one_by_one.items()})
        )
    kind = f"{header.kinds}, dequantised"
    return Source(
        source, path, family, spec, weights, stored, fingerprint([path]), kind, config, gguf_model.unread(header)
    )


def _info(found: Source, model: PreTrainedModel, device: str) -> ModelInfo:
    used = ("llmtrace-torch", "torch", "transformers", *(("gguf",) if found.gguf else ()))
    return ModelInfo(
        source=found.name, backend="torch", runtime="PyTorch", versions={name: version(name) for name in used},
        fingerprint=found.fingerprint, weights=found.kind, device=device,
        settings=settings_of(model, experts=bool(choices(found.spec))),
    )  # fmt: skip
