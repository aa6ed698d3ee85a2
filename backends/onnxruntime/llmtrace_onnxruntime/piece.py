"""Pieces of a graph as models of their own: what lies between values that are given and values that are wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from llmtrace.errors import BackendError
from llmtrace.schema.sites import Array
from llmtrace_onnxruntime.flow import reads


class Cutter:
    """What cuts pieces out of one graph, and knows who makes what in it."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._proto = proto
        self._nodes = list(proto.graph.node)
        self._makers = {name: at for at, node in enumerate(self._nodes) for name in node.output if name}
        self._weights = {tensor.name: tensor for tensor in proto.graph.initializer}

    def piece(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> onnx.ModelProto:
        """The nodes that the outputs need, back to the inputs, which may have any lengths along as many axes as the arrays have.

        Weights stay where they are. Raises `BackendError` for an output that needs more of what the whole graph is fed.
        """
        needed: set[int] = set()
        used: dict[str, None] = {}
        todo = list(outputs)
        while todo:
            name = todo.pop()
            if name in used or name in inputs:
                continue
            used[name] = None
            if name in self._weights:
                continue
            if name not in self._makers:
                raise BackendError(
                    f"{outputs[0]} cannot be computed from {', '.join(inputs) or 'nothing'}: it needs {name} too."
                )
            if (at := self._makers[name]) not in needed:
                needed.add(at)
                todo.extend(reads(self._nodes[at]))
        graph = onnx.helper.make_graph(
            [_without(self._nodes[at], inputs) for at in sorted(needed)],
            "piece",
            [
                onnx.helper.make_tensor_value_info(
                    name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim
                )
                for name, array in inputs.items()
            ],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [self._weights[name] for name in used if name in self._weights],
        )
        return onnx.helper.make_model(graph, opset_imports=self._proto.opset_import, ir_version=self._proto.ir_version)


def _without(node: onnx.NodeProto, inputs: Mapping[str, Array]) -> onnx.NodeProto:
    """The node; one that makes a given value beside a needed one makes it under another name."""
    if not any(name in inputs for name in node.output):
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for place, name in enumerate(copy.output):
        if name in inputs:
            copy.output[place] = f"{name} (made)"
    return copy
