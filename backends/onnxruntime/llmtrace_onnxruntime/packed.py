"""Attention operators that do more than attend. **Packed**: q, k and v side by side in one value, as one matrix makes them.

ONNX Runtime's `Attention` multiplies by its matrix itself, and its `MultiHeadAttention` may take q, k and v in one value, and add their biases. For
reading, what they do before heads meet is done by operators of its own, and one `MultiHeadAttention` does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from llmtrace_onnxruntime.flow import attribute, reading

MICROSOFT = "com.microsoft"
MULTIHEAD = "MultiHeadAttention"
KEPT = ("num_heads", "unidirectional", "scale", "mask_filter_value")
"""Attributes that mean the same to both."""
HIDES = ("do_rotary", "past_present_share_buffer")
"""What only `Attention` can be told."""


def attention_parts(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> list[onnx.NodeProto]:
    """The nodes that a node stands for; itself, where it hides nothing or more than is known. `shapes` are those of constants.

    A past is taken as empty, and the keys and values of the prompt are not handed out.
    """
    if node.domain != MICROSOFT:
        return [node]
    if node.op_type == "Attention" and node.input[1] in shapes and not any(attribute(node, each) for each in HIDES):
        return _with_matrix(node, shapes[node.input[1]][-1])
    if node.op_type == MULTIHEAD:
        return _with_bias(node, shapes)
    return [node]


def _with_matrix(node: onnx.NodeProto, width: int) -> list[onnx.NodeProto]:
    at = node.output[0]
    sizes = attribute(node, "qkv_hidden_sizes") or [width // 3] * 3
    nodes = [onnx.helper.make_node("MatMul", node.input[:2], [f"{at}/product"])]
    packed = f"{at}/product"
    if reading(node, 2):
        packed = f"{at}/sum"
        nodes.append(onnx.helper.make_node("Add", [f"{at}/product", node.input[2]], [packed]))
    names = []
    for letter, columns in zip("qkv", _columns(sizes), strict=True):  # type: ignore[arg-type]
        names.append(f"{at}/{letter}")
        nodes += _picked(packed, columns, 2, names[-1])
    found = onnx.helper.make_node(MULTIHEAD, [*names, "", reading(node, 3), reading(node, 5)], [at], domain=MICROSOFT)
    found.attribute.extend(each for each in node.attribute if each.name in KEPT)
    return [*nodes, found]


def _with_bias(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> list[onnx.NodeProto]:
    at, names = node.output[0], [reading(node, place) for place in range(3)]
    nodes = []
    if not names[2]:  # [batch token head 3 d], or q and [batch token head 2 d]
        whole, letters = (names[0], "qkv") if not names[1] else (names[1], "kv")
        split = [f"{at}/{letter}" for letter in letters]
        for place, name in enumerate(split):
            nodes += _picked(whole, np.array(place), 3, f"{name} by head")
            nodes.append(_constant(np.array([0, 0, -1]), f"{name}/shape"))
            nodes.append(onnx.helper.make_node("Reshape", [f"{name} by head", f"{name}/shape"], [name]))
        names = [*names[: 3 - len(split)], *split]
    bias = reading(node, 3)
    if bias in shapes and not shapes[bias][0] % 3:
        for place, columns in enumerate(_columns([shapes[bias][0] // 3] * 3)):
            part, total = f"{at}/bias {place}", f"{at}/{'qkv'[place]} and bias"
            nodes += _picked(bias, columns, 0, part)
            nodes.append(onnx.helper.make_node("Add", [names[place], part], [total]))
            names[place] = total
        bias = ""
    if not nodes:
        return [node]
    found = onnx.NodeProto()
    found.CopyFrom(node)
    found.input[:] = [*names, bias, *node.input[4:]]
    return [*nodes, found]


def _columns(sizes: Sequence[int]) -> list[np.ndarray]:
    """Neighbouring columns, so many each."""
    ends = np.cumsum(sizes)
    return [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _picked(name: str, index: np.ndarray, axis: int, makes: str) -> list[onnx.NodeProto]:
    """Some places of an axis: an operator that every operator set spells the same."""
    return [
        _constant(index, f"{makes}/index"),
        onnx.helper.make_node("Gather", [name, f"{makes}/index"], [makes], axis=axis),
    ]


def _constant(array: np.ndarray, makes: str) -> onnx.NodeProto:
    value = onnx.numpy_helper.from_array(array.astype(np.int64), makes)
    return onnx.helper.make_node("Constant", [], [makes], value=value)
