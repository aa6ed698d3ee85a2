"""Norms that add before they norm. **Sum**: what such an operator norms; the residual stream, which it hands out where it is asked to. A bias
that it adds is a branch's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

from llmtrace_onnxruntime.segments import PRODUCTS

SKIP_NORMS: Mapping[str, int] = {"SkipLayerNormalization": 4, "SkipSimplifiedLayerNormalization": 3}
"""Operators that are a sum and its norm, to the place of the optional bias of the sum."""
PLACE = 3
"""The output that is the sum."""


def name_sums(model: onnx.ModelProto) -> None:
    """Give a name to the sums that have none, so that a run can be asked for them."""
    for node in _skip_norms(model):
        while len(node.output) <= PLACE:
            node.output.append("")
        node.output[PLACE] = node.output[PLACE] or f"{node.output[0]}/sum"


def parted(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which each of them is the two operators that it stands for: a sum, and its norm. Its sums must have names."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    nodes = list(copied.graph.node)
    makers = {name: node for node in nodes for name in node.output}
    del copied.graph.node[:]
    for node in nodes:
        copied.graph.node.extend(_parts(node, makers) if node.op_type in SKIP_NORMS else [node])
    return copied


def _parts(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The bias is what a product of a branch lacks, where it can be told which of both is one."""
    place, total = SKIP_NORMS[node.op_type], node.output[PLACE]
    terms, bias = list(node.input[:2]), list(filter(None, node.input[place : place + 1]))
    products = [each for each in terms if _is_product(each, makers)]
    added = []
    if bias and len(products) == 1:
        added = [onnx.helper.make_node("Add", [products[0], *bias], [f"{total}/biased"])]
        terms[terms.index(products[0])], bias = f"{total}/biased", []
    add = onnx.helper.make_node("Sum", [*terms, *bias], [total])
    norm = onnx.helper.make_node(
        node.op_type.removeprefix("Skip"), [total, *node.input[2:place]], [node.output[0]],
        axis=-1, **{each.name: onnx.helper.get_attribute_value(each) for each in node.attribute if each.name == "epsilon"},
    )  # fmt: skip
    return [*added, add, norm]


def _is_product(name: str, makers: Mapping[str, onnx.NodeProto]) -> bool:
    while (node := makers.get(name)) is not None and node.op_type in ("Reshape", "Cast", "Identity"):
        name = node.input[0]
    return node is not None and node.op_type in PRODUCTS


def _skip_norms(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    return (node for node in model.graph.node if node.op_type in SKIP_NORMS)
