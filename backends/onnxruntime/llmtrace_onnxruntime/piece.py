"""A piece of a graph as a model of its own: what lies between values that are given and values that are wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from llmtrace.errors import BackendError
from llmtrace.schema.sites import Array
from llmtrace_onnxruntime.flow import reads


def piece(proto: onnx.ModelProto, inputs: Mapping[str, Array], outputs: Sequence[str]) -> onnx.ModelProto:
    """The nodes that the outputs need, back to the inputs, which may have any lengths along as many axes as the arrays have.

    Weights stay where they are. Raises `BackendError` for an output that needs more of what the whole graph is fed.
    """
    makers = {name: node for node in proto.graph.node for name in node.output if name}
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    needed: set[int] = set()
    used: set[str] = set()
    todo = [name for name in outputs if name not in inputs]
    while todo:
        name = todo.pop()
        if name in used or name in inputs:
            continue
        used.add(name)
        if name in weights:
            continue
        if name not in makers:
            raise BackendError(
                f"{outputs[0]} cannot be computed from {', '.join(inputs) or 'nothing'}: it needs {name} too."
            )
        node = makers[name]
        if id(node) not in needed:
            needed.add(id(node))
            todo.extend(reads(node))
    nodes = [
        node
        for node in proto.graph.node
        if any(name in used and id(makers[name]) in needed for name in node.output if name)
    ]
    graph = onnx.helper.make_graph(
        _without(nodes, inputs),
        "piece",
        [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim
            )
            for name, array in inputs.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [weights[name] for name in weights if name in used],
    )
    return onnx.helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)


def _without(nodes: Sequence[onnx.NodeProto], inputs: Mapping[str, Array]) -> list[onnx.NodeProto]:
    """The nodes; one that makes a given value beside a needed one makes it under another name."""
    out = []
    for node in nodes:
        if any(name in inputs for name in node.output):
            copy = onnx.NodeProto.FromString(node.SerializeToString())
            for place, name in enumerate(copy.output):
                if name in inputs:
                    copy.output[place] = f"{name} (made)"
            out.append(copy)
        else:
            out.append(node)
    return out
