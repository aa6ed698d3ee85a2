"""Opening a checkpoint whose architecture no row describes: its spec is read off the model as it runs."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING

from llmtrace.errors import ModelOpenError, UnsupportedModelError
from llmtrace.families import FAMILIES
from llmtrace.fingerprint import fingerprint
from llmtrace.trace import ModelInfo
from llmtrace_torch.loading import device_of, load, non_finite, settings_of
from llmtrace_torch.options import TorchOptions
from llmtrace_torch.tape.found import find
from llmtrace_torch.tape.session import TapedSession
from llmtrace_torch.tokenizer import open_tokenizer


def unknown(path: Path) -> str:
    """The `model_type` of a checkpoint that transformers knows and no row describes; empty for any other."""
    try:
        config: Any = json.loads((path / "config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return ""
    kind = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind in FAMILIES or kind not in CONFIG_MAPPING:
        return ""
    return "" if config.get("quantization_config") or config.get("auto_map") else kind


def open_by_running(source: str, path: Path, kind: str, options: TorchOptions) -> TapedSession:
    """Load a model, and read what it computes. Raises `ModelOpenError`, `UnsupportedModelError` and `OptionError`."""
    model: Any = load(source, path, options)
    device = device_of(options.device)
    try:
        model.to(device)
        found = find(model, kind, model.get_input_embeddings().weight.shape[0])
    except UnsupportedModelError as error:
        raise UnsupportedModelError(
            f"{source}, a model of the type {kind!r:.60}, is not read as a decoder: {error}"
        ) from error
    except RuntimeError as error:  # out of memory, or a kernel that lacks this type or device
        raise ModelOpenError(f"{source} cannot be run as {model.dtype} on {device}: {error}") from error
    tokenizer, missing = open_tokenizer(path, gguf=False, trust=False)
    files = [path / "config.json", *sorted(path.glob("*.safetensors"))]
    info = ModelInfo(
        source=source, backend="torch", runtime="PyTorch",
        versions={name: version(name) for name in ("llmtrace-torch", "torch", "transformers")},
        fingerprint=fingerprint(files), weights=", ".join(sorted({*found.stored.values()})), device=device,
        settings=settings_of(model, experts=model._can_set_experts_implementation()),
        notes=(*filter(None, [missing]), *found.notes, *non_finite(model)),
    )  # fmt: skip
    return TapedSession(model, found, info, tokenizer)
