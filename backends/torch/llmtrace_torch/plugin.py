"""What LLMTrace loads: the PyTorch backend and its hook. PyTorch itself is imported when a model is opened, not before."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from llmtrace import hookimpl
from llmtrace.protocol import Fit, Preset, TraceBackend, TraceSession
from llmtrace_torch.options import PRESETS, TorchOptions

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
"""`name` or `organisation/name`."""

WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf"})
"""Suffixes of files that transformers has, or had, weights in."""


class TorchBackend:
    """Opens transformers checkpoints: a directory, the name of a model on the hub, or a GGUF file, which is dequantised."""

    name: ClassVar[str] = "torch"
    runtime: ClassVar[str] = "PyTorch"
    distributions: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    options: ClassVar[type[TorchOptions]] = TorchOptions
    capabilities: ClassVar[tuple[str, ...]] = ("weights", "many", "edits", "replacement")

    @staticmethod
    def probe(source: str, path: Path | None) -> Fit | None:
        """A directory with a `config.json` that names its `model_type`, a file that begins as GGUF, or what looks like a hub id. A directory
        without weights is another runtime's, if one knows what it holds.
        """
        if path is None:
            return (
                "native"
                if HUB_ID.fullmatch(source) and not source.endswith((".onnx", ".gguf", ".safetensors"))
                else None
            )
        if path.is_dir():
            if not _model_type(path / "config.json"):
                return None
            return "native" if any(file.suffix in WEIGHTS for file in path.iterdir()) else "converting"
        return "converting" if _begins(path, b"GGUF") else None

    @staticmethod
    def preset(preset: Preset) -> TorchOptions:
        """`exact` is float32 with eager attention, `shipped` what transformers does by itself."""
        return PRESETS[preset]

    @staticmethod
    def open(source: str, options: TorchOptions) -> TraceSession:
        """Load the model. Raises `ModelOpenError` and its kin, with the culprit and the fix."""
        from llmtrace_torch.open import open_model

        return open_model(source, options)


@hookimpl
def llmtrace_backends() -> Sequence[type[TraceBackend]]:
    """The PyTorch backend."""
    return [TorchBackend]


def _model_type(path: Path) -> bool:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return path.is_file()  # a broken config: opening it says what is wrong
    return isinstance(found, dict) and "model_type" in found


def _begins(path: Path, magic: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return False
