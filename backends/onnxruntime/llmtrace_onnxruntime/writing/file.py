"""The file of a graph, there whole or not at all."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import helper

from llmtrace.errors import OptionError, suggest
from llmtrace_onnxruntime.writing.ends import model as write_model
from llmtrace_onnxruntime.writing.graph import Graph
from llmtrace_onnxruntime.writing.prompt import IDS, LOGITS, PADDING
from llmtrace_onnxruntime.writing.stored import Model, Weights, check_kind
from llmtrace_onnxruntime.writing.style import MICROSOFT, STYLES

SMALL = 1024
"""Bytes from which a weight may lie outside of the graph."""
AXES = ("batch", "sequence")


def write_onnx(
    model: Model, path: str | Path, kind: str = "float32", style: str = "plain", *, external: bool = False
) -> Path:
    """Write a model as an ONNX file; returns the path. Always the same bytes for the same model.

    The graph takes `input_ids` and `attention_mask` [batch sequence] and gives `logits` [batch sequence vocab]. `external`: weights lie in
    a file beside it, which is called after its content, so that an older graph never reads a newer one's.

    Raises `OptionError` for a kind or style that there is not, `UnsupportedModelError` for a model that the style has no operators for or
    whose columns are no whole blocks, `ModelOpenError` for weights that its spec does not fit. Then nothing is written.
    """
    check_kind(kind)
    if style not in STYLES:
        raise OptionError(f"There is no style {style!r}; there are {', '.join(STYLES)}.{suggest(style, STYLES)}")
    path = Path(path)
    graph = Graph(Weights(model), kind, STYLES[style])
    write_model(graph, model.spec)
    _save(_proto(graph, model.spec.predicted), path, external=external)
    return path


def _proto(graph: Graph, vocab: int) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(each, onnx.TensorProto.INT64, AXES) for each in (IDS, PADDING)]
    output = helper.make_tensor_value_info(LOGITS, graph.element, (*AXES, vocab))
    domains = {node.domain for node in graph.nodes}
    sets = [helper.make_opsetid("", graph.style.opset)]
    sets += [helper.make_opsetid(MICROSOFT, 1)] if MICROSOFT in domains else []
    whole = helper.make_graph(graph.nodes, "decoder", inputs, [output], graph.constants)
    return helper.make_model(
        whole,
        producer_name="llmtrace",
        opset_imports=sets,
        ir_version=helper.find_min_ir_version_for(sets[:1], ignore_unknown=True),
    )


def _save(proto: onnx.ModelProto, path: Path, *, external: bool) -> None:
    """Put the file or both files in their place when they are whole, the graph last: an older one stays until then."""
    digest = sha256(b"".join(tensor.raw_data for tensor in proto.graph.initializer)).hexdigest()
    data = f"{path.name}.{digest[:8]}.data"
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as place:
        whole = Path(place)
        onnx.save_model(proto, whole / path.name, save_as_external_data=external, location=data, size_threshold=SMALL)
        for name in (data, path.name):
            if (whole / name).exists():  # a model of small weights alone has none beside it
                os.replace(whole / name, path.with_name(name))  # noqa: PTH105  replaces what is there, on every system
