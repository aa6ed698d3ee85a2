"""From a directory to a session."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
from mlx_lm.utils import load_model

from llmtrace.errors import ModelOpenError
from llmtrace.families.checkpoint import open_checkpoint
from llmtrace.tokenizer import open_tokenizer
from llmtrace.trace import ModelInfo
from llmtrace_mlx.options import MlxOptions
from llmtrace_mlx.session import MlxSession


def open_model(source: str, options: MlxOptions) -> MlxSession:
    """Load a checkpoint. Raises `ModelOpenError` and its kin, with the culprit and the fix."""
    path = Path(source).expanduser()
    checkpoint = open_checkpoint(path)  # checks config and tensors, and says what is wrong with them
    device = mx.Device(mx.cpu) if options.device == "cpu" else mx.default_device()
    tokenizer, note = open_tokenizer(path)
    info = ModelInfo(
        source=source,
        backend="mlx",
        runtime="MLX",
        versions={name: version(name) for name in ("llmtrace-mlx", "mlx", "mlx-lm")},
        fingerprint=checkpoint.fingerprint,
        weights=", ".join(sorted(set(checkpoint.stored.values()))),
        device="cpu" if device == mx.cpu else "gpu",
        settings={"dtype": options.dtype},
        notes=(note,) if note else (),
    )
    try:
        with mx.stream(device):
            model, _ = load_model(path)
            if options.dtype == "float32":
                model.set_dtype(mx.float32)
            return MlxSession(model, device, checkpoint, info, tokenizer)
    except Exception as error:  # whatever MLX makes of a config, of tensors, of a type that a kernel lacks
        why = " ".join(str(error).split())[:200]
        raise ModelOpenError(f"mlx-lm cannot run {source} with {options}: {type(error).__name__}: {why}") from error
