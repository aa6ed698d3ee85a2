"""What LLMTrace asks before a model is open. MLX is imported by `open`, not before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmtrace import hookimpl
from llmtrace.protocol import Fit, Preset, TraceBackend, TraceSession
from llmtrace_mlx.options import MlxOptions

FAMILIES = ("gemma2", "gpt2", "gpt_neox", "llama", "mistral", "mixtral", "qwen3")
"""`model_type` of the decoders that the conformance kit has looked at. Others are opened if the backend is named, and judged by `verify`."""


class MlxBackend:
    """Checkpoint directories, as mlx-lm loads them."""

    name = "mlx"
    runtime = "MLX"
    distributions = ("mlx", "mlx-lm")
    options = MlxOptions
    capabilities = ("weights",)

    @staticmethod
    def probe(source: str, path: Path | None) -> Fit | None:  # noqa: ARG004  (the protocol's signature)
        """A checkpoint of a known family. `converting`: it is transformers' format, so a backend for that goes first."""
        try:
            config = (
                json.loads((path / "config.json").read_text()) if path and any(path.glob("*.safetensors")) else None
            )
        except (OSError, ValueError):  # whoever opens it says what is wrong with it
            return None
        return "converting" if isinstance(config, dict) and config.get("model_type") in FAMILIES else None

    @staticmethod
    def preset(preset: Preset) -> MlxOptions:
        """`exact` is float32 on the CPU, `shipped` what mlx-lm does by itself."""
        return MlxOptions("cpu", "float32") if preset == "exact" else MlxOptions()

    @staticmethod
    def open(source: str, options: MlxOptions) -> TraceSession:
        """Load the model. Raises `ModelOpenError` and its kin, with the culprit and the fix."""
        from llmtrace_mlx.open import open_model

        return open_model(source, options)


@hookimpl
def llmtrace_backends() -> list[type[TraceBackend]]:
    """The MLX backend."""
    return [MlxBackend]


@hookimpl
def llmtrace_conformance() -> list[type[Any]]:
    """How the kit opens it, and what is known to be missing: for `llmtrace check-backend mlx`."""
    from llmtrace_mlx.conformance import MlxConformance

    return [MlxConformance]
