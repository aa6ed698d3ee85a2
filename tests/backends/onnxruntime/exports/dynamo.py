"""torch's exporter: `torch.onnx.export(dynamo=True)`, weights in a file beside the graph."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from tests.backends.onnxruntime.exports.exporter import Exporter

NEEDS = {"torch": "torch", "transformers": "transformers", "onnx": "onnx", "onnxscript": "onnxscript"}


def make(checkpoint: Path, out: Path, attention: str = "eager", opset: int = 18, past: bool = False) -> None:
    """One sequence of every length; from opset 23 on, attention is an operator."""
    import torch

    from tests.backends.onnxruntime.exports.wrapping import with_past, without_past

    graph = with_past(checkpoint, attention) if past else without_past(checkpoint, attention)
    dynamic = torch.export.Dim.DYNAMIC
    shapes: list[Any] = [{axis: dynamic for axis in graph.axes[name] if axis} for name in graph.inputs]
    if past:
        shapes = [*shapes[:3], tuple(shapes[3:])]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.module, graph.arguments, str(out / "model.onnx"), dynamo=True, verbose=False, external_data=True, opset_version=opset,
            input_names=list(graph.inputs), output_names=list(graph.outputs), dynamic_shapes=tuple(shapes),
        )  # fmt: skip


EXPORTERS = (
    Exporter("dynamo-18", make, NEEDS),
    Exporter("dynamo-18-sdpa", partial(make, attention="sdpa"), NEEDS),
    Exporter("dynamo-23", partial(make, opset=23), NEEDS),
    Exporter("dynamo-23-sdpa", partial(make, attention="sdpa", opset=23), NEEDS),
    Exporter("dynamo-18-past", partial(make, past=True), NEEDS),
)
