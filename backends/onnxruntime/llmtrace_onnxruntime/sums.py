"""Norms that add before they norm. **Sum**: what such an operator norms; the residual stream, which it hands out where it is asked to. A bias
that it adds is a branch's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

from llmtrace.dataflow.segments import PRODUCTS

SKIP_NORMS: Mapping[str, int] = {"SkipLayerNormalization": 4, "SkipSimplifiedLayerNormalization": 3}
"""Operators that are a sum and its norm, to the place of the optional bias of the sum."""
PLACE = 3
"""The output that is the sum."""
WHOLE = frozenset({"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"})
"""Products of whole numbers."""
EMBEDS, EMBED_PLACE = "EmbedLayerNormalization", 2
"""An operator that looks tokens and positions up before it adds and norms, and the output that is its sum."""
EPSILON = {"epsilon": 1e-12}
"""Of its norm, where it says none."""


def name_sums(model: onnx.ModelProto) -> None:
    """Give a name to the sums that have none, so that a run can be asked for them."""
    for node, place in _sums(model):
        while len(node.output) <= place:
            node.output.append("")
        node.output[place] = node.output[place] or f"{node.output[0]}/sum"


def parted(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which each of them is the two operators that it stands for: a sum, and its norm. Its sums must have names."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    nodes = list(copied.graph.node)
    summed = {node.output[0]: node for node, _ in _sums(copied)}
    makers = {name: node for node in nodes for name in node.output}
    del copied.graph.node[:]
    for node in nodes:
        if node.output[0] not in summed:
            copied.graph.node.append(node)
        else:
            copied.graph.node.extend(_embedded(node) if node.op_type == EMBEDS else _parts(node, makers))
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
    if node is not None and node.op_type == "Mul":  # whole numbers, and their scale
        return any(_of_integers(each, makers) for each in node.input)
    return node is not None and node.op_type in PRODUCTS | WHOLE


def _of_integers(name: str, makers: Mapping[str, onnx.NodeProto]) -> bool:
    node = makers.get(name)
    return (
        node is not None
        and node.op_type == "Cast"
        and (made := makers.get(node.input[0])) is not None
        and made.op_type in WHOLE
    )


def _embedded(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Two look-ups, their sum and its norm. Positions that are not given are counted."""
    total, names = node.output[EMBED_PLACE], list(node.input)
    positions, nodes = names[8] if len(names) > 8 else "", list[onnx.NodeProto]()
    if not positions:
        positions = f"{total}/positions"
        for name, value in (("zero", 0), ("one", 1)):
            number = onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [], [value])
            nodes.append(onnx.helper.make_node("Constant", [], [f"{total}/{name}"], value=number))
        nodes += [
            onnx.helper.make_node("Shape", [names[0]], [f"{total}/shape"]),
            onnx.helper.make_node("Gather", [f"{total}/shape", f"{total}/one"], [f"{total}/length"]),
            onnx.helper.make_node("Range", [f"{total}/{each}" for each in ("zero", "length", "one")], [positions]),
        ]
    epsilon = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute if each.name == "epsilon"}
    return [
        *nodes,
        onnx.helper.make_node("Gather", [names[2], names[0]], [f"{total}/tokens"]),
        onnx.helper.make_node("Gather", [names[3], positions], [f"{total}/places"]),
        onnx.helper.make_node("Add", [f"{total}/tokens", f"{total}/places"], [total]),
        onnx.helper.make_node(
            "LayerNormalization", [total, *names[5:7]], [node.output[0]], axis=-1, **(epsilon or EPSILON)
        ),
    ]


def _sums(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, int]]:
    """The operators that are a sum and its norm, and the output that is the sum. One that looks up segments too, or masks, is none that is known."""
    read = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    for node in model.graph.node:
        if node.op_type in SKIP_NORMS:
            yield node, PLACE
        elif node.op_type == EMBEDS and not node.input[1] and not read.intersection(filter(None, node.output[1:2])):
            yield node, EMBED_PLACE
