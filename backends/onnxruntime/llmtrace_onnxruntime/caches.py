"""The shapes of caches. A past is empty: its axis of tokens has the length 0, all others what the graph says, or its attention, or what
became of it, or at last `genai_config.json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import onnx

from llmtrace.errors import UnsupportedModelError
from llmtrace_onnxruntime.choosing import decoder
from llmtrace_onnxruntime.flow import Flow, attribute, dims, reading
from llmtrace_onnxruntime.proto import Loaded

GQA, OWN = "GroupQueryAttention", "com.microsoft"
BEFORE = frozenset(
    {"Identity", "Cast", "Reshape", "Transpose", "Add", "Mul", "RotaryEmbedding", "Unsqueeze", "Squeeze"}
)
"""What may stand between a projection and the attention that reads it."""

PRODUCTS = frozenset({"MatMul", "FusedMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"})
"""Products by the matrix [in, out] that they read second."""


def past_shape(
    loaded: Loaded, flow: Flow, name: str, shape: tuple[int | str, ...]
) -> tuple[int | Literal["n"] | tuple[Literal["n"], int], ...]:
    """The shape of an empty past, or of a ring.

    Raises `UnsupportedModelError` for a cache of fixed length, and for a length that nothing tells.
    """
    if (both := _stacked(flow, name)) is not None:
        heads, width = _heads_of(loaded, both, shape)
        return (2, 1, heads, 0, width)
    attention = _attention(flow, name)
    present = _present(loaded, flow, name)
    if attention is not None:
        axis: int | None = 2
    else:
        open_axes = [place for place, length in enumerate(shape) if place and isinstance(length, str)]
        if len(open_axes) > 1 and present is not None and len(present) == len(shape):
            open_axes = [place for place in open_axes if shape[place] != present[place]] or open_axes
        axis = open_axes[0] if len(open_axes) == 1 else _joined(flow, name, len(shape))
    if axis is None or axis >= len(shape) or isinstance(shape[axis], int):
        raise UnsupportedModelError(
            f"{loaded.path}: the cache {name} has the fixed shape {list(shape)}: export the model with a past of any length, or without."
        )
    found: list[int | Literal["n"] | tuple[Literal["n"], int]] = []
    for place, length in enumerate(shape):
        if place == axis:
            found.append(
                ("n", _window(loaded, attention, name) - 1) if attention is not None and ring(attention) else 0
            )
        elif isinstance(length, int):
            found.append(length)
        elif place == 0:
            found.append(1)
        else:
            found.append(_length(loaded, flow, name, attention, present, place))
    return tuple(found)


def is_ring(flow: Flow, name: str) -> bool:
    """Whether a cache is that of an attention that keeps a window's tokens only."""
    attention = _attention(flow, name)
    return attention is not None and ring(attention)


def ring(attention: onnx.NodeProto) -> bool:
    """Whether it keeps a window's tokens only."""
    return bool(attribute(attention, "sliding_window_cache", 0))


def _stacked(flow: Flow, name: str) -> onnx.NodeProto | None:
    """ONNX Runtime's `Attention` that reads a cache of keys and values on top of each other: [2, prompt, head, token, channel]."""
    return next(
        (node for node, place in flow.arrivals(name) if (node.op_type, node.domain, place) == ("Attention", OWN, 4)),
        None,
    )


def _heads_of(loaded: Loaded, attention: onnx.NodeProto, shape: tuple[int | str, ...]) -> tuple[int, int]:
    """How many heads a stacked cache has, and how wide they are: as the operator's matrix has them, where the shape leaves that open."""
    heads, sizes = attribute(attention, "num_heads", 0), attribute(attention, "qkv_hidden_sizes")
    width = shape[-1]
    if isinstance(heads, int) and heads and not isinstance(width, int):
        whole = loaded.tensors.shapes.get(attention.input[1], (0,))[-1]
        width = (int(sizes[1]) if isinstance(sizes, Sequence) and not isinstance(sizes, str) else whole // 3) // heads
    if not isinstance(heads, int) or not heads or not isinstance(width, int) or not width:
        raise UnsupportedModelError(
            f"{loaded.path}: nothing tells how wide the heads of its caches are: export the model again, with shapes of its caches."
        )
    return heads, width


def _attention(flow: Flow, name: str) -> onnx.NodeProto | None:
    """The grouped-query attention that reads a cache as its past."""
    return next((node for node, place in flow.arrivals(name) if node.op_type == GQA and place in {3, 4}), None)


def _present(loaded: Loaded, flow: Flow, name: str) -> tuple[int | str, ...] | None:
    """The shape of the output that the cache becomes with the prompt."""
    shapes = {value.name: dims(value) for value in loaded.graph.output}
    for node, place in flow.arrivals(name):
        if node.op_type == GQA and place in {3, 4} and len(node.output) > place - 2:
            return shapes.get(node.output[place - 2])
        if node.op_type == "Concat" and node.output[0] in shapes:
            return shapes[node.output[0]]
    return None


def _joined(flow: Flow, name: str, rank: int) -> int | None:
    """The axis along which the cache and what the prompt adds are joined, where it is joined as it is."""
    for node, _ in flow.readers.get(name, ()):
        if node.op_type == "Concat":
            axis = attribute(node, "axis", 0)
            return int(axis) % rank if isinstance(axis, int) else None
    return None


def _window(loaded: Loaded, attention: onnx.NodeProto, name: str) -> int:
    window = attribute(attention, "local_window_size", -1)
    if isinstance(window, int) and window > 0:
        return window
    said = decoder(loaded.genai).get("sliding_window")
    window = said.get("window_size") if isinstance(said, dict) else None
    if isinstance(window, int) and window > 0:
        return window
    raise UnsupportedModelError(
        f"{loaded.path}: the cache {name} is a window's, and nothing says how long that is: export it again."
    )


def _length(
    loaded: Loaded,
    flow: Flow,
    name: str,
    attention: onnx.NodeProto | None,
    present: tuple[int | str, ...] | None,
    place: int,
) -> int:
    """The length of another axis that the input leaves open."""
    if present is not None and place < len(present) and isinstance(length := present[place], int):
        return length
    if attention is not None:
        kv = attribute(attention, "kv_num_heads", 0)
        if place == 1 and isinstance(kv, int) and kv:
            return kv
        if place == 3 and (width := _head(loaded, flow, attention)):
            return width
    model = decoder(loaded.genai)
    said = {1: model.get("num_key_value_heads"), 3: model.get("head_size")}.get(place)
    if isinstance(said, int) and 0 < said < 1 << 16:
        return said
    raise UnsupportedModelError(
        f"{loaded.path}: nothing tells how long axis {place} of the cache {name} is: export the model again, with shapes of its caches."
    )


def _head(loaded: Loaded, flow: Flow, attention: onnx.NodeProto) -> int | None:
    """The width of a head, from that of the projection that the attention reads."""
    heads, kv = attribute(attention, "num_heads", 0), attribute(attention, "kv_num_heads", 0)
    if not isinstance(heads, int) or not isinstance(kv, int) or not heads or not kv:
        return None
    packed = not reading(attention, 1)
    made = flow.makers.get(flow.origin(reading(attention, 0 if packed else 2), BEFORE))
    if made is None:
        return None
    width = None
    if made.op_type == "MatMulNBits":
        width = attribute(made, "N")
    elif made.op_type in PRODUCTS:
        weight = flow.origin(reading(made, 1), {"Identity", "Cast", "DequantizeLinear"})
        shape = loaded.tensors.shapes.get(weight, ())
        width = shape[-1] if len(shape) == 2 else None
    parts = heads + 2 * kv if packed else kv
    return width // parts if isinstance(width, int) and width % parts == 0 else None
