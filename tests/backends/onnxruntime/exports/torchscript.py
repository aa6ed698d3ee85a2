"""torch's older exporter, by tracing: `torch.onnx.export(dynamo=False)`, one file."""

from __future__ import annotations

import contextlib
import io
import warnings
from functools import partial
from pathlib import Path

from tests.backends.onnxruntime.exports.exporter import Exporter

NEEDS = {"torch": "torch", "transformers": "transformers", "onnx": "onnx"}


def make(checkpoint: Path, out: Path, attention: str = "eager", past: bool = False, last: bool = False) -> None:
    """Opset 17, every batch and length."""
    import torch

    from tests.backends.onnxruntime.exports.wrapping import with_past, without_past

    graph = with_past(checkpoint, attention, last) if past else without_past(checkpoint, attention)
    with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # it is deprecated, and says of each constant that it is one
        torch.onnx.export(
            graph.module, graph.arguments, str(out / "model.onnx"), dynamo=False, opset_version=17, input_names=list(graph.inputs),
            output_names=list(graph.outputs), dynamic_axes=graph.axes,
        )  # fmt: skip


EXPORTERS = (
    Exporter("torchscript", make, NEEDS),
    Exporter("torchscript-sdpa", partial(make, attention="sdpa"), NEEDS),
    Exporter("torchscript-past", partial(make, past=True), NEEDS),
    Exporter("torchscript-last", partial(make, past=True, last=True), NEEDS),
)
