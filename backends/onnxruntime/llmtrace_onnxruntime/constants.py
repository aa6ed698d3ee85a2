"""The numbers that stand in a graph: initialisers, what is computed from them alone, and matrices packed in few bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from attrs import evolve, frozen

from llmtrace.errors import UnsupportedModelError
from llmtrace.schema.sites import Array
from llmtrace_onnxruntime.graph import Graph, Vertex
from llmtrace_onnxruntime.segments import Line

WHOLE = 4
"""The accuracy level of a `MatMulNBits` whose kernel multiplies 8-bit integers."""
OPERANDS: Mapping[int, str] = {16: "int8_16", 32: "q8_0", 64: "int8_64", 128: "int8_128", 256: "int8_256"}
"""How the schema calls what the other factor is then rounded to, by the numbers that share a scale: as many as of the weights."""
Compute: TypeAlias = Callable[[Sequence[str]], Mapping[str, Array]]
"""Values that no input changes, as the runtime computes them."""


@frozen(eq=False)
class Source:
    """Where a weight comes from."""

    constant: str
    """The constant that holds it, perhaps with others."""
    read: Callable[[], Array]
    """Makes it, in the schema's shape."""
    packed: str = ""
    """The type of its numbers, where they are packed (`int4`)."""
    operands: str = ""
    """What the other factor of a product is rounded to."""

    def then(self, change: Callable[[Array], Array]) -> Source:
        """The same, and then changed."""
        return evolve(self, read=lambda: change(self.read()))


class Constants(Mapping[str, Array]):
    """Constant values of a graph by name, read or computed on access."""

    def __init__(self, graph: Graph, tensors: Mapping[str, Array], compute: Compute) -> None:
        self._graph = graph
        self._tensors = tensors
        self._compute = compute

    def __getitem__(self, name: str) -> Array:
        if name in self._tensors:
            return self._tensors[name]
        if name not in self._graph.constants:
            raise KeyError(name)
        return self._compute((name,))[name]

    def __contains__(self, name: object) -> bool:
        return name in self._graph.constants

    def __iter__(self) -> Iterator[str]:
        return iter(self._graph.constants)

    def __len__(self) -> int:
        return len(self._graph.constants)


def matrix(one: Line, constants: Mapping[str, Array]) -> Source:
    """What a line multiplies by, [in, out]."""
    packed = f"int{one.product.attributes.get('bits', 4)}" if one.product.op == "MatMulNBits" else ""
    rounds = packed and one.product.attributes.get("accuracy_level") == WHOLE
    operands = OPERANDS.get(int(one.product.attributes["block_size"]), "") if rounds else ""
    return Source(one.product.reads[1], lambda: _matrix(one, constants), packed, operands)


def _matrix(one: Line, constants: Mapping[str, Array]) -> Array:
    vertex = one.product
    if vertex.op == "MatMulNBits":
        return unpacked_matrix(vertex, constants).T
    found = constants[vertex.reads[1]]
    if vertex.attributes.get("transB"):
        found = found.T
    alpha = float(vertex.attributes.get("alpha", 1.0))
    if alpha != 1.0:
        found = np.asarray(found, np.float32) * np.float32(alpha)
    return found


def bias(one: Line, constants: Mapping[str, Array]) -> Source:
    """What a line that has a bias adds, [out]."""
    return Source(one.bias, lambda: _bias(one, constants))


def _bias(one: Line, constants: Mapping[str, Array]) -> Array:
    found = np.asarray(constants[one.bias]).reshape(-1)
    beta = float(one.product.attributes.get("beta", 1.0))
    return found if one.product.op != "Gemm" or beta == 1.0 else np.asarray(found, np.float32) * np.float32(beta)


def table(look_up: Vertex, constants: Mapping[str, Array]) -> Source:
    """The table of a look-up, [row, channel]."""
    packed = f"int{look_up.attributes.get('bits', 4)}" if look_up.op == "GatherBlockQuantized" else ""
    return Source(look_up.reads[0], lambda: _table(look_up, constants), packed)


def _table(look_up: Vertex, constants: Mapping[str, Array]) -> Array:
    if look_up.op == "GatherBlockQuantized":
        return _unpacked_table(look_up, constants)
    found = constants[look_up.reads[0]]
    axis = int(look_up.attributes.get("axis", 0))
    if found.ndim != 2 or axis != 0:
        raise UnsupportedModelError(
            f"The table of the embedding has the shape {list(found.shape)}, looked up along axis {axis}."
        )
    return found


def unpacked_matrix(vertex: Vertex, constants: Mapping[str, Array]) -> Array:
    """The matrix of a `MatMulNBits`, [out, in], float32: whole numbers less their block's zero, times its scale.

    ONNX Runtime's contrib operators: `B [N, blocks, bytes]`, low bits first; zero points packed as the numbers are, 2^(bits-1) by default.
    """
    attributes = vertex.attributes
    bits, size = int(attributes.get("bits", 4)), int(attributes["block_size"])
    rows, width = int(attributes["N"]), int(attributes["K"])
    blocks = -(-width // size)
    levels = _unpacked(np.asarray(constants[vertex.reads[1]]).reshape(rows, -1), bits)[:, : blocks * size]
    scales = np.asarray(constants[vertex.reads[2]], np.float32).reshape(rows, blocks, 1)
    zero: Array | float = float(1 << (bits - 1))
    if vertex.reading(3):
        stored = np.asarray(constants[vertex.reads[3]])
        if stored.dtype == np.uint8:
            zero = _unpacked(stored.reshape(rows, -1), bits)[:, :blocks, None].astype(np.float32)
        else:
            zero = np.asarray(stored, np.float32).reshape(rows, blocks, 1)
    if vertex.reading(4):
        raise UnsupportedModelError(f"{vertex.makes[0]} orders its columns in groups (g_idx), which is not read yet.")
    found = (levels.reshape(rows, blocks, size).astype(np.float32) - zero) * scales
    return np.asarray(found.reshape(rows, -1)[:, :width])


def experts_matrix(vertex: Vertex, place: int, constants: Mapping[str, Array]) -> Source:
    """The matrices of a `MoE` or `QMoE` at a place, [expert, out, in]."""
    packed = f"int{vertex.attributes.get('expert_weight_bits', 4)}" if vertex.op == "QMoE" else ""
    return Source(vertex.reads[place], lambda: _experts(vertex, place, constants), packed)


def _experts(vertex: Vertex, place: int, constants: Mapping[str, Array]) -> Array:
    """Of a `QMoE`: whole numbers less half their range, times the scale of their row or block, which is read next."""
    found = np.asarray(constants[vertex.reads[place]])
    if vertex.op != "QMoE":
        return found
    bits = int(vertex.attributes.get("expert_weight_bits", 4))
    levels = _unpacked(found, bits).astype(np.float32) - np.float32(1 << (bits - 1))
    scales = np.asarray(constants[vertex.reads[place + 1]], np.float32)
    if scales.ndim == 2:
        return np.asarray(levels * scales[..., None])
    blocks = np.repeat(scales, -(-levels.shape[-1] // scales.shape[-1]), axis=-1)
    return np.asarray(levels * blocks[..., : levels.shape[-1]])


def _unpacked_table(vertex: Vertex, constants: Mapping[str, Array]) -> Array:
    """The table of a `GatherBlockQuantized`, [row, channel], float32. Without zero points, bytes have the middle of their range, and numbers of
    four bits nought.
    """
    attributes = vertex.attributes
    bits, size = int(attributes.get("bits", 4)), int(attributes.get("block_size", 128))
    data = np.asarray(constants[vertex.reads[0]])
    levels = _unpacked(data.reshape(len(data), -1), bits) if data.dtype == np.uint8 else data.reshape(len(data), -1)
    scales = np.repeat(np.asarray(constants[vertex.reads[2]], np.float32).reshape(len(data), -1), size, axis=1)
    width = min(levels.shape[1], scales.shape[1])
    zero: Array | float = float(1 << (bits - 1)) if data.dtype == np.uint8 else 0.0
    if vertex.reading(3):
        stored = np.asarray(constants[vertex.reads[3]])
        packed = stored.reshape(len(data), -1)
        zero = np.repeat(
            _unpacked(packed, bits) if stored.dtype == np.uint8 else packed.astype(np.float32), size, axis=1
        )[:, :width]
    return np.asarray((levels[:, :width].astype(np.float32) - zero) * scales[:, :width])


def _unpacked(packed: Array, bits: int) -> Array:
    """Numbers of a few bits out of bytes along the last axis, low bits first."""
    if bits == 8:
        return packed
    per, mask = 8 // bits, np.uint8((1 << bits) - 1)
    numbers: Array = np.empty((*packed.shape, per), np.uint8)
    for place in range(per):
        np.bitwise_and(packed >> np.uint8(place * bits), mask, out=numbers[..., place])
    return numbers.reshape(*packed.shape[:-1], -1)
