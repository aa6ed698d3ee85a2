"""Logits of the last position alone. **Cut**: where a graph lets go of all other positions, before its head or after it.

A server needs no others; whoever asks what a model predicts everywhere does. `whole` takes the cut out: every position then goes through
the same operators and weights.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from attrs import frozen

from llmtrace_onnxruntime.flow import Flow, attribute, dims, reading
from llmtrace_onnxruntime.proto import Loaded
from llmtrace_onnxruntime.spelling import spelled

HEAD = frozenset({
    "Identity", "Cast", "MatMul", "Gemm", "MatMulNBits", "FusedMatMul", "Add", "Mul", "Div", "Tanh", "Unsqueeze", "Squeeze", "Reshape",
    "Slice", "Gather", "Transpose", "LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization",
})  # fmt: skip
"""What stands between the residual stream and the logits."""


@frozen(eq=False)
class Cutting:
    """One cut."""

    before: str
    """The value with all positions."""
    after: str
    """What comes of it, with one, and as many axes; empty where that cannot be told."""


def last_only(loaded: Loaded, flow: Flow, logits: str) -> bool:
    """Whether the logits are those of the last position, whatever the length of the prompt."""
    shape = next((dims(value) for value in loaded.graph.output if value.name == logits), None)
    return any(_cuts(loaded, flow, logits)) or (shape is not None and len(shape) == 3 and shape[1] == 1)


def whole(loaded: Loaded, logits: str) -> onnx.ModelProto | None:
    """The model with logits of every position; None where its cut cannot be taken out."""
    found = list(_cuts(loaded, Flow(loaded.graph), logits))
    if not found or not all(cut.after for cut in found):
        return None
    proto = loaded.copy()
    for cut in found:
        for node in proto.graph.node:
            for place, name in enumerate(node.input):
                if name == cut.after:
                    node.input[place] = cut.before
    for value in proto.graph.output:
        if value.name == logits:
            value.type.tensor_type.ClearField("shape")
    if logits in {cut.after for cut in found}:
        proto.graph.node.append(
            onnx.helper.make_node("Identity", [next(cut.before for cut in found if cut.after == logits)], [logits])
        )
        _without(proto.graph, logits)
    del proto.graph.value_info[:]  # they tell of one position
    return proto


def _cuts(loaded: Loaded, flow: Flow, logits: str) -> Iterator[Cutting]:
    """Back from the logits, over the head and what scales it; a head of whole numbers is one of what they stand for."""
    spelt = spelled(loaded.proto, loaded.tensors.shapes).model
    flow = flow if spelt is loaded.proto else Flow(spelt.graph)
    name = logits
    while (node := flow.makers.get(name)) is not None and node.op_type in HEAD:
        inputs = [each for each in node.input if each and not flow.constant(each)]
        if len(inputs) != 1 or not node.input:
            return
        if node.op_type in {"Slice", "Gather"} and inputs[0] == node.input[0]:
            yield from _cut(loaded, flow, node)
        name = inputs[0]


def _cut(loaded: Loaded, flow: Flow, node: onnx.NodeProto) -> Iterator[Cutting]:
    """The cut that a node makes, if it is one along the positions."""
    numbers = [
        np.atleast_1d(value) for name in node.input[1:] if name and (value := _constant(loaded, flow, name)) is not None
    ]
    if node.op_type == "Gather":
        axis = attribute(node, "axis", 0)
        if axis not in {1, -2} or not numbers or numbers[0].size != 1 or numbers[0].flat[0] != -1:
            return
        scalar = _rank(loaded, flow, reading(node, 1)) == 0
        after = node.output[0]
        if scalar:
            restored = [each for each, _ in flow.readers.get(after, ()) if each.op_type == "Unsqueeze"]
            after = restored[0].output[0] if len(restored) == 1 == len(flow.readers[after]) else ""
        yield Cutting(node.input[0], after)
        return
    names = ("starts", "ends", "axes", "steps")
    given = dict(zip(names, numbers, strict=False))
    for each in names[:3]:  # of the operator's first version they are attributes
        if (found := attribute(node, each)) is not None:
            given[each] = np.asarray(found)
    if "starts" not in given or "axes" not in given:
        return
    if any(axis in {1, -2} and start == -1 for start, axis in zip(given["starts"], given["axes"], strict=False)):
        yield Cutting(node.input[0], node.output[0])


def _constant(loaded: Loaded, flow: Flow, name: str) -> np.ndarray | None:
    origin = flow.origin(name)
    return loaded.tensors.get(origin)


def _rank(loaded: Loaded, flow: Flow, name: str) -> int | None:
    return len(loaded.tensors.shapes[name]) if name in loaded.tensors else None


def _without(graph: onnx.GraphProto, name: str) -> None:
    """Take away the first node that makes a value, of two."""
    kept = [node for node in graph.node if name not in node.output]
    last = [node for node in graph.node if name in node.output][-1:]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in [*kept, *last]]
    del graph.node[:]
    graph.node.extend(copies)
