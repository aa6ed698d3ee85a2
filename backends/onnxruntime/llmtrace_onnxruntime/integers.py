"""Products of whole numbers. **Dynamic**: a graph rounds what a matrix reads to 8 bits as it comes, one scale and one zero for all of it, and
multiplies it by a matrix of 8 bits: how ONNX Runtime quantises a graph without an example to run it on.

For reading, such a product is one with the numbers that the matrix stands for, of what was not rounded: it makes the same value, but for the
rounding. So is a look-up in a table of 8 bits that is scaled afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import onnx
from attrs import frozen

from llmtrace_onnxruntime.flow import Flow, attribute, reading

ROUNDS = "DynamicQuantizeLinear"
"""Makes whole numbers, their scale and their zero."""
OPERANDS = "uint8_tensor"
"""What the schema calls a factor that it has rounded."""
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]


@frozen(eq=False)
class Widened:
    """Nodes that stand for others, for reading."""

    nodes: tuple[onnx.NodeProto, ...]
    makes: str
    """The value that both make."""
    matrix: str
    """The constant that they widen."""
    levels: str
    """Its whole numbers."""
    rounds: bool = False
    """Whether what the matrix is multiplied by is rounded before."""


@frozen(eq=False)
class Rounded:
    """Where whole numbers come from."""

    of: str
    """The value that they stand for."""
    scale: str
    dynamic: bool
    """Whether that value is a float first; a row of a table of 8 bits is not."""


def product(flow: Flow, node: onnx.NodeProto) -> Widened | None:
    """A product of whole numbers as one of what they stand for; None for another node, or for one of which that cannot be told."""
    if node.op_type == "MatMulInteger":
        return _in_steps(flow, node)
    if node.op_type == "MatMulIntegerToFloat":  # numbers, matrix, their scales, their zeros, a bias
        rounded = _rounded(flow, node.input[0], reading(node, 4))
        scales = [node.input[2], node.input[3]]
        if rounded is not None and _meets(flow, rounded, scales):
            levels = (node.input[1], reading(node, 5))
            return _widened(flow, rounded, levels, scales, node.output[0], reading(node, 6))
    if node.op_type == "DynamicQuantizeMatMul":  # what is not rounded yet, matrix, its scale and zero, a bias
        levels, own = (node.input[1], reading(node, 3)), Rounded(node.input[0], "", True)
        return _widened(flow, own, levels, ["", node.input[2]], node.output[0], reading(node, 4))
    return None


def looked_up(flow: Flow, node: onnx.NodeProto, shapes: Shapes) -> Widened | None:
    """A scaling of rows of whole numbers, as a look-up of what they stand for; None for another node."""
    if node.op_type != "DequantizeLinear":
        return None
    gather = flow.makers.get(node.input[0])
    if gather is None or gather.op_type != "Gather" or not flow.constant(gather.input[0]):
        return None
    scale, zero = node.input[1], reading(node, 2)
    if not flow.constant(scale) or (zero and not flow.constant(zero)) or max((0, *shapes.get(scale, (2,)))) > 1:
        return None
    matrix = f"{node.output[0]}/table"
    found = onnx.NodeProto()
    found.CopyFrom(gather)
    found.name, found.input[0] = "", matrix
    found.output[:] = [node.output[0]]
    return Widened((*_wide(gather.input[0], zero, [scale], matrix), found), node.output[0], matrix, gather.input[0])


def _rounded(flow: Flow, numbers: str, zero: str) -> Rounded | None:
    """What whole numbers are less their zero: a value that was rounded to them, or one that they are made into elsewhere."""
    maker = flow.makers.get(numbers)
    if maker is not None and maker.op_type == ROUNDS and [numbers, zero] == [maker.output[0], maker.output[2]]:
        return Rounded(maker.input[0], maker.output[1], True)
    for node, place in flow.readers.get(numbers, ()):
        if node.op_type == "DequantizeLinear" and place == 0 and reading(node, 2) == zero:
            return Rounded(node.output[0], node.input[1], False)
    return None


def _in_steps(flow: Flow, node: onnx.NodeProto) -> Widened | None:
    """`MatMulInteger`, whose sums are made floats and scaled by operators of their own."""
    rounded = _rounded(flow, node.input[0], reading(node, 2))
    if rounded is None:
        return None
    name, scales = node.output[0], list[str]()
    while not _meets(flow, rounded, scales):
        readers = flow.readers.get(name, [])
        if len(readers) != 1:
            return None
        reader, place = readers[0]
        if reader.op_type == "Mul":
            scales += _factors(flow, reader.input[1 - place])
        elif reader.op_type != "Cast" or attribute(reader, "to") != onnx.TensorProto.FLOAT:
            return None
        name = reader.output[0]
    return _widened(flow, rounded, (node.input[1], reading(node, 3)), scales, name)


def _meets(flow: Flow, rounded: Rounded, scales: Sequence[str]) -> bool:
    """Whether the scale of whole numbers is among others; one that is no input's may have been multiplied by them before the graph runs."""
    return rounded.scale in scales or (
        flow.constant(rounded.scale) and bool(scales) and all(map(flow.constant, scales))
    )


def _factors(flow: Flow, name: str) -> list[str]:
    """What a number is the product of."""
    maker = flow.makers.get(name)
    if maker is None or maker.op_type != "Mul":
        return [name]
    return [factor for each in maker.input for factor in _factors(flow, each)]


def _widened(
    flow: Flow, rounded: Rounded, numbers: tuple[str, str], scales: Sequence[str], makes: str, bias: str = ""
) -> Widened | None:
    levels, zero = numbers
    scales = list(scales)
    if rounded.scale in scales:
        scales.remove(rounded.scale)
        over = ""
    else:
        over = rounded.scale
    if not all(flow.constant(each) for each in (levels, *filter(None, [zero, bias]), *scales)) or not scales:
        return None
    matrix, made = f"{makes}/matrix", f"{makes}/product" if bias else makes
    nodes = [*_wide(levels, zero, scales, matrix, over), onnx.helper.make_node("MatMul", [rounded.of, matrix], [made])]
    if bias:
        nodes.append(onnx.helper.make_node("Add", [made, bias], [makes]))
    return Widened(tuple(nodes), makes, matrix, levels, rounded.dynamic)


def _wide(levels: str, zero: str, scales: Sequence[str], makes: str, over: str = "") -> list[onnx.NodeProto]:
    """(levels - zero) · scales / over, as floats."""
    to = onnx.TensorProto.FLOAT
    nodes = [onnx.helper.make_node("Cast", [levels], [f"{makes}/levels"], to=to)]
    name = f"{makes}/levels"
    if zero:
        nodes.append(onnx.helper.make_node("Cast", [zero], [f"{makes}/zero"], to=to))
        nodes.append(onnx.helper.make_node("Sub", [name, f"{makes}/zero"], [f"{makes}/centred"]))
        name = f"{makes}/centred"
    steps = [*(("Mul", scale) for scale in scales), *([("Div", over)] if over else [])]
    for place, (op, factor) in enumerate(steps, 1):
        made = makes if place == len(steps) else f"{makes}/scaled {place}"
        nodes.append(onnx.helper.make_node(op, [name, factor], [made]))
        name = made
    return nodes
