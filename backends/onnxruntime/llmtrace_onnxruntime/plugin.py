"""What LLMTrace asks before a model is open. ONNX Runtime is imported by `open`, not before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llmtrace import hookimpl
from llmtrace.errors import ModelOpenError
from llmtrace.protocol import Fit, Preset, TraceBackend, TraceSession
from llmtrace_onnxruntime.embedded import file_of
from llmtrace_onnxruntime.options import PRESETS, OnnxRuntimeOptions

if TYPE_CHECKING:
    from llmtrace.comparison.case import Hypothesis

SUFFIX = ".onnx"
FOLDERS = ("", "onnx")
VERSION = 0x08
"""How a model's first field, its version, begins."""
NEXT = frozenset({0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72, 0xA2, 0xCA})
"""How any other field of a model begins."""


class OnnxRuntimeBackend:
    """ONNX graphs of decoders, as ONNX Runtime computes them."""

    name: ClassVar[str] = "onnxruntime"
    runtime: ClassVar[str] = "ONNX Runtime"
    distributions: ClassVar[tuple[str, ...]] = ("onnx",)
    options: ClassVar[type[Any]] = OnnxRuntimeOptions
    capabilities: ClassVar[tuple[str, ...]] = ("weights", "edits")

    @staticmethod
    def probe(source: str, path: Path | None) -> Fit | None:
        """A file that begins as a model does, or is called one, or a directory with one. Where a directory holds a checkpoint too, that is
        the model and the graph a conversion of it: whoever opens checkpoints comes first.
        """
        if path is None:
            return "converting" if file_of(source) else None
        if path.is_dir():
            if not any(_is_model(file) for folder in FOLDERS for file in _files(path / folder)):
                return None
            return "converting" if any(path.glob("*.safetensors")) or any(path.glob("*.bin")) else "native"
        return "native" if _is_model(path) else None

    @staticmethod
    def preset(preset: Preset) -> OnnxRuntimeOptions:
        """`exact` runs the graph as it is written, with weights as they are stored; `shipped` as ONNX Runtime rewrites it."""
        return PRESETS[preset]

    @staticmethod
    def open(source: str, options: OnnxRuntimeOptions) -> TraceSession:
        """Load the model. Raises `ModelOpenError` and its kin, with the culprit and the fix."""
        try:
            import onnxruntime  # noqa: F401  # a build of it: onnxruntime, onnxruntime-gpu, …
        except ImportError as error:
            raise ModelOpenError(f"ONNX Runtime cannot be imported ({error}): pip install onnxruntime.") from error
        from llmtrace_onnxruntime.open import open_model

        return open_model(source, options)


@hookimpl
def llmtrace_backends() -> Sequence[type[TraceBackend]]:
    """The ONNX Runtime backend."""
    return [OnnxRuntimeBackend]


@hookimpl
def llmtrace_hypotheses() -> Sequence[Hypothesis]:
    """That sums of int8 products were cut off."""
    from llmtrace_onnxruntime.hypotheses import ROWS

    return ROWS


@hookimpl
def llmtrace_conformance() -> list[type[Any]]:
    """How the kit's models become ONNX files, and what is known to be missing."""
    from llmtrace_onnxruntime.conformance import OnnxRuntimeConformance

    return [OnnxRuntimeConformance]


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)
    except OSError:
        return []


def _is_model(path: Path) -> bool:
    """Whether a file's first bytes are a model's; one that may not be read counts by its name, so that opening it says what is wrong."""
    try:
        with path.open("rb") as file:
            begin = file.read(4)
    except OSError:  # a directory, or a file that may not be read
        return path.suffix == SUFFIX and path.is_file()
    return len(begin) > 2 and begin[0] == VERSION and begin[1] < 128 and begin[2] in NEXT
