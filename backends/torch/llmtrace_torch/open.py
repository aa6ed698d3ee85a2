"""From a source to a session: a checkpoint directory, the name of a model on the hub, or a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from attrs import evolve, frozen
from transformers import PreTrainedModel

from llmtrace.errors import ModelOpenError, OptionError, UnsupportedModelError
from llmtrace.families import family as family_of
from llmtrace.families import spec_of
from llmtrace.families.checkpoint import PICKLES, open_checkpoint
from llmtrace.families.native import Family
from llmtrace.families.weights import weights_from
from llmtrace.fingerprint import fingerprint
from llmtrace.gguf_split import read_whole
from llmtrace.schema.sites import Array
from llmtrace.spec import ModelSpec
from llmtrace.trace import ModelInfo
from llmtrace_torch import gguf_model
from llmtrace_torch.falcon import alibi_twice
from llmtrace_torch.hub import fetch
from llmtrace_torch.locate import choices, locate
from llmtrace_torch.offers import gaps, offers
from llmtrace_torch.options import TorchOptions
from llmtrace_torch.quiet import quiet
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


def open_model(source: str, options: TorchOptions) -> TorchSession:
    """Open a model. Raises `ModelOpenError`, `UnsupportedModelError`, `OptionError`, with the culprit and the fix."""
    path = Path(source).expanduser()
    if not path.exists():
        path = fetch(source, options.revision, trust=options.trust_remote_code)
    found = _directory(source, path, options) if path.is_dir() else _gguf(source, path)
    device = _device(options.device)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    model = _load(found, options).eval()
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
        model, found.spec, evolve(info, notes=notes + _non_finite(model)), tokenizer, located,
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


def _load(found: Source, options: TorchOptions) -> PreTrainedModel:
    """The model by transformers' own loader, and nothing left at random."""
    dtype = "float32" if found.gguf and options.dtype == "auto" else options.dtype
    where: dict[str, Any] = (
        {"gguf_file": found.path.name, "config": found.gguf} if found.gguf else {"use_safetensors": True}
    )
    attention = None if options.attention == "auto" else options.attention
    trust = options.trust_remote_code and not found.gguf
    try:
        with quiet(), gguf_model.alone(found.path) if found.gguf else nullcontext(found.path) as directory:
            both: Any = transformers.AutoModelForCausalLM.from_pretrained(
                directory, local_files_only=True, dtype=dtype, attn_implementation=attention, output_loading_info=True,
                ignore_mismatched_sizes=True, trust_remote_code=trust, **where,
            )  # fmt: skip
            loaded: PreTrainedModel = both[0]
            report: Mapping[str, Any] = both[1]
    except Exception as error:  # transformers raises whatever it meets
        if options.attention == "sdpa" and isinstance(error, ValueError) and "scaled_dot_product" in str(error):
            raise OptionError(
                f"transformers has no sdpa attention for {found.spec.family} models: leave attention=auto, or ask for eager."
            ) from error
        raise ModelOpenError(f"transformers cannot load {found.name}: {type(error).__name__}: {error}") from error
    _complete(found, report)
    if loaded.dtype == torch.float64 and choices(found.spec):
        loaded.set_experts_implementation("eager")  # the grouped product has no float64
    return loaded


def _complete(found: Source, report: Mapping[str, Any]) -> None:
    """Raise `ModelOpenError` for a tensor that transformers did not find or could not use: it would be filled with random numbers."""
    fix = (
        "Its GGUF reader may not know this variant: the backend llamacpp reads the file itself"
        if found.gguf
        else "Fetch it again"
    )
    for what, why in (
        ("missing_keys", "did not find"),
        ("mismatched_keys", "expects another shape of"),
        ("error_msgs", "cannot use"),
    ):
        names = sorted(str(name[0] if isinstance(name, tuple) else name) for name in report.get(what) or ())
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ModelOpenError(
                f"transformers {why} {names[0]}{more} in {found.name}, and would use random numbers. {fix}."
            )


def _device(wanted: str) -> str:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name in there if there[name])
    if not there[wanted]:
        raise OptionError(
            f"The option device={wanted!r} names a device that PyTorch does not find here; cpu always works."
        )
    return wanted


def _info(found: Source, model: PreTrainedModel, device: str) -> ModelInfo:
    experts = {"experts": str(model.get_experts_implementation()[""])} if choices(found.spec) else {}
    used = ("llmtrace-torch", "torch", "transformers", *(("gguf",) if found.gguf else ()))
    return ModelInfo(
        source=found.name, backend="torch", runtime="PyTorch", versions={name: version(name) for name in used},
        fingerprint=found.fingerprint, weights=found.kind, device=device,
        settings={
            "dtype": str(model.dtype).removeprefix("torch."), "attention": str(model.config._attn_implementation),
            **experts, "threads": str(torch.get_num_threads()),
        },
    )  # fmt: skip


def _non_finite(model: PreTrainedModel) -> tuple[str, ...]:
    bad = next((name for name, weight in model.named_parameters() if not _finite(weight.detach())), None)
    return () if bad is None else (f"{bad} holds NaN or infinite values",)


def _finite(weight: torch.Tensor) -> bool:
    """Whether all elements are. A sum is ten times as quick as a look at each, and finite only if they all are; a sum may overflow."""
    return bool(torch.isfinite(weight.sum())) or bool(torch.isfinite(weight).all())
