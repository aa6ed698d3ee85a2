"""Operators that are several, taken apart. **Inside**: a value that only the parts have; a run of the graph as it is never holds it.

A graph is read in its parts, and runs as it is: what is inside is computed for reading, and never handed out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

import onnx

T = TypeVar("T")

BIASED: Mapping[str, tuple[str, str]] = {
    "BiasGelu": ("Gelu", "com.microsoft"),
    "FastGelu": ("FastGelu", "com.microsoft"),
}
"""Activations that may add a bias (read second) first, to the operator and domain of the activation alone."""
WIDENS = "DequantizeLinear"
ACTIVATIONS = ("Relu", "Tanh", "Sigmoid")
"""What `FusedGemm` may apply at last."""


def unfused(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which biases, factors and activations that an optimiser put into other operators stand for themselves again."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    nodes = _once(copied.graph)
    kinds = {tensor.name: tensor.data_type for tensor in copied.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    del copied.graph.node[:]
    for node in nodes:
        copied.graph.node.extend(_parts(node, kinds, readers))
    return copied


def inside(parts: onnx.ModelProto, whole: onnx.ModelProto) -> frozenset[str]:
    """The values that the parts of a graph have and it has not."""
    made = [{name for node in model.graph.node for name in node.output} for model in (parts, whole)]
    return frozenset(made[0] - made[1])


def _once(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes, without those that widen the same whole numbers again: an optimiser gives each reader its own."""
    first: dict[bytes, str] = {}
    instead: dict[str, str] = {}
    kept, outputs = [], {value.name for value in graph.output}
    for node in graph.node:
        node.input[:] = [instead.get(name, name) for name in node.input]
        if node.op_type == WIDENS and node.output[0] not in outputs:
            same = onnx.NodeProto(op_type=WIDENS, input=node.input, attribute=node.attribute).SerializeToString()
            if same in first:
                instead[node.output[0]] = first[same]
                continue
            first[same] = node.output[0]
        kept.append(node)
    return kept


def _parts(
    node: onnx.NodeProto, kinds: Mapping[str, int], readers: Mapping[str, list[onnx.NodeProto]]
) -> list[onnx.NodeProto]:
    if node.op_type in BIASED and len(node.input) > 1 and node.input[1]:
        return _biased(node)
    if node.op_type == "FusedGemm" and _attribute(node, "activation", b"").decode() in ACTIVATIONS:
        return _activated(node)
    scaled = node.op_type == "FusedMatMul" and _attribute(node, "alpha", 1.0) != 1.0 and node.input[1] in kinds
    if scaled and not _adds_bias(readers.get(node.output[0], []), kinds):
        return _scaled(node, kinds[node.input[1]])
    return [node]


def _biased(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    op, domain = BIASED[node.op_type]
    total = f"{node.output[0]}/sum"
    return [
        onnx.helper.make_node("Add", node.input[:2], [total]),
        onnx.helper.make_node(op, [total], node.output, domain=domain),
    ]


def _activated(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    made = f"{node.output[0]}/line"
    gemm = _changed(node, made, lambda name: not name.startswith("activation"))
    gemm.op_type, gemm.domain = "Gemm", ""
    return [gemm, onnx.helper.make_node(_attribute(node, "activation", b"").decode(), [made], node.output)]


def _scaled(node: onnx.NodeProto, kind: int) -> list[onnx.NodeProto]:
    """A product, and then its factor: the scale of logits, or of what a branch adds."""
    made, factor = f"{node.output[0]}/product", f"{node.output[0]}/factor"
    value = onnx.helper.make_tensor(factor, kind, [], [_attribute(node, "alpha", 1.0)])
    return [
        _changed(node, made, lambda name: name != "alpha"),
        onnx.helper.make_node("Constant", [], [factor], value=value),
        onnx.helper.make_node("Mul", [made, factor], node.output),
    ]


def _changed(node: onnx.NodeProto, made: str, kept: Callable[[str], bool]) -> onnx.NodeProto:
    """A copy that makes another value, with some of its attributes."""
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    copied.output[:] = [made]
    del copied.attribute[:]
    copied.attribute.extend(each for each in node.attribute if kept(each.name))
    return copied


def _adds_bias(readers: Collection[onnx.NodeProto], kinds: Mapping[str, int]) -> bool:
    """Whether the product goes into a sum with a constant: then its factor is the matrix's own."""
    return any(node.op_type == "Add" and any(name in kinds for name in node.input) for node in readers)


def _attribute(node: onnx.NodeProto, name: str, default: T) -> T:
    return next((onnx.helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)
