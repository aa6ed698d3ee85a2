"""What LLMTrace asks before a model is open. The library is loaded by `open`, not before."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from llmtrace import hookimpl
from llmtrace.protocol import Fit, Preset, TraceBackend, TraceSession
from llmtrace_llamacpp.options import LlamaCppOptions


class LlamaCppBackend:
    """GGUF files, as llama.cpp computes them."""

    name: ClassVar[str] = "llamacpp"
    runtime: ClassVar[str] = "llama.cpp"
    distributions: ClassVar[tuple[str, ...]] = ("gguf",)
    options: ClassVar[type[Any]] = LlamaCppOptions
    capabilities: ClassVar[tuple[str, ...]] = ("weights", "edits")

    @staticmethod
    def probe(source: str, path: Path | None) -> Fit | None:  # noqa: ARG004  (the protocol's signature)
        """A file that begins as a GGUF does: the runtime's own format."""
        if path is None or not path.is_file():
            return None
        try:
            with path.open("rb") as file:
                return "native" if file.read(4) == b"GGUF" else None
        except OSError:  # whoever opens it says what is wrong with it
            return None

    @staticmethod
    def preset(preset: Preset) -> LlamaCppOptions:
        """`exact` computes attention in float32, `shipped` as llama.cpp does by itself."""
        return LlamaCppOptions(flash_attn="off", cache="f32") if preset == "exact" else LlamaCppOptions()

    @staticmethod
    def open(source: str, options: LlamaCppOptions) -> TraceSession:
        """Load the model. Raises `ModelOpenError` and its kin, with the culprit and the fix."""
        from llmtrace_llamacpp.open import open_model

        return open_model(source, options)


@hookimpl
def llmtrace_backends() -> list[type[TraceBackend]]:
    """The llama.cpp backend."""
    return [LlamaCppBackend]


@hookimpl
def llmtrace_conformance() -> list[type[Any]]:
    """How the kit's models become GGUF files, and what is known to be missing."""
    from llmtrace_llamacpp.conformance import LlamaCppConformance

    return [LlamaCppConformance]
