"""From the nodes of an ONNX graph to the vertices of a dataflow: names and attributes as they are, and no weight looked at."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import onnx

from llmtrace.dataflow.graph import Graph, Vertex


def read_graph(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    """The graph of a model, no weight looked at; `shapes` are those of its initialisers and constants."""
    vertices = [
        Vertex(
            index, node.op_type, node.domain, tuple(node.input), tuple(node.output),
            {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute},
        )
        for index, node in enumerate(model.graph.node)
    ]  # fmt: skip
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    for info in onnx.shape_inference.infer_shapes(model).graph.value_info:
        dims = info.type.tensor_type.shape.dim if info.type.tensor_type.HasField("shape") else None
        if dims is not None and all(each.dim_value for each in dims):
            sizes.setdefault(info.name, prod(each.dim_value for each in dims))
    inputs = [each.name for each in model.graph.input if each.name not in shapes]
    return Graph(vertices, shapes, sizes, inputs)
