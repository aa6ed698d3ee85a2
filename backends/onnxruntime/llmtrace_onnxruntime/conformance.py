"""The conformance kit for this backend: its models are written as ONNX graphs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shutil import copyfile
from typing import Any, ClassVar

from llmtrace.errors import UnsupportedModelError
from llmtrace.protocol import Gap
from llmtrace.testing import BackendConformance, TinyModel
from llmtrace_onnxruntime.plugin import OnnxRuntimeBackend
from llmtrace_onnxruntime.writing import write_onnx

CONFIG = "config.json"


class OnnxRuntimeConformance(BackendConformance):
    """ONNX Runtime, held to every law, on graphs of standard operators as torch's exporter spells them."""

    backend = OnnxRuntimeBackend
    gaps: ClassVar[dict[str, Gap]] = {}
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "rewritten": {"optimization": "all"},
        "prepacked": {"prepacking": True},
    }
    style: ClassVar[str] = "plain"
    """Whose operators the graphs are made of (`llmtrace_onnxruntime.writing.STYLES`)."""

    def source(self, tiny: TinyModel, directory: Path) -> Path:
        """The model as an ONNX file, in float32, with the `config.json` that an exporter leaves beside it.

        Raises `NotImplementedError` for a family that the style's operators cannot say.
        """
        copyfile(tiny.directory / CONFIG, directory / CONFIG)
        try:
            return write_onnx(tiny, directory / "model.onnx", style=self.style)
        except UnsupportedModelError as refusal:
            raise NotImplementedError(str(refusal)) from refusal
