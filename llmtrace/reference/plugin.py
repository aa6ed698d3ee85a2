"""What the reference backend tells LLMTrace before any model is open. Imports nothing that reads a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from llmtrace import hookimpl
from llmtrace.data import PREFIX
from llmtrace.protocol import Fit, Preset, TraceBackend, TraceSession
from llmtrace.reference.options import ReferenceOptions

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin")
"""What makes a directory with a config.json a checkpoint; pickles are claimed so that opening can say why they are refused."""


class ReferenceBackend:
    """The equations, executed. Opens checkpoint directories (config.json and safetensors) and the embedded models."""

    name: ClassVar[str] = "reference"
    runtime: ClassVar[str] = "NumPy"
    distributions: ClassVar[tuple[str, ...]] = ("numpy",)
    options: ClassVar[type[Any]] = ReferenceOptions
    capabilities: ClassVar[tuple[str, ...]] = ("weights", "replay", "edits", "replacement")

    @staticmethod
    def probe(source: str, path: Path | None) -> Fit | None:
        """A checkpoint directory as a last resort; an embedded model (`builtin:NAME`) as its own."""
        if path is None:
            return "native" if source.startswith(PREFIX) else None
        checkpoint = (path / "config.json").is_file() and any(any(path.glob(pattern)) for pattern in WEIGHTS)
        return "reference" if checkpoint else None

    @staticmethod
    def preset(preset: Preset) -> ReferenceOptions:  # noqa: ARG004  (the protocol's signature)
        """float64 in both."""
        return ReferenceOptions()

    @staticmethod
    def open(source: str, options: Any) -> TraceSession:
        """Open a directory or an embedded model. Raises `ModelOpenError`, with the culprit and the fix."""
        from llmtrace.reference.open import open_reference

        return open_reference(source, options)


@hookimpl
def llmtrace_backends() -> Sequence[type[TraceBackend]]:
    """The reference backend."""
    return [ReferenceBackend]
