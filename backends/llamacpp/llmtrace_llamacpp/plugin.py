"""What LLMTrace asks before a model is open. The library is loaded by `open`, not before."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from llmtrace import hookimpl
from llmtrace.protocol import Fit, Preset, TraceBackend, TraceSession
from llmtrace_llamacpp.embedded import file_of
from llmtrace_llamacpp.options import LlamaCppOptions


class LlamaCppBackend:
    """GGUF files, as llama.cpp computes them."""

    name: ClassVar[str] = "llamacpp"
    runtime: ClassVar[str] = "llama.cpp"
    distributions: ClassVar[tuple[str, ...]] = ("gguf",)
    options: ClassVar[type[Any]] = LlamaCppOptions
    capabilities: ClassVar[tuple[str, ...]] = ("weights", "edits")

    @staticmethod
    def probe(source: str, path: Path | None) -> Fit | None:
        """A file that begins as a GGUF does: the runtime's own format. Of an embedded model there is one here, made of the core's."""
        if path is None:
            return "converting" if file_of(source) else None
        if not path.is_file():
            return None
        try:
            with path.open("rb") as file:
                return "native" if file.read(4) == b"GGUF" else None
        except OSError:  # whoever opens it says what is wrong with it
            return None

    @staticmethod
    def preset(preset: Preset) -> LlamaCppOptions:
        """`exact` computes attention in float32, `shipped` as llama.cpp does by itself."""
        if preset == "exact":
            return LlamaCppOptions(flash_attn="off", cache="f32", micro_batch=2048)
        return LlamaCppOptions()

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
