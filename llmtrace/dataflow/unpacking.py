"""Matrices, tables and experts packed in few bits, as ONNX Runtime's contrib operators `MatMulNBits`, `GatherBlockQuantized` and `QMoE`
hold them. **Level**: one of the whole numbers that are packed; **block**: the neighbours in a row that share a scale.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llmtrace.dataflow.graph import Vertex
from llmtrace.errors import UnsupportedModelError
from llmtrace.schema.sites import Array

WHOLE = 4
"""The accuracy level of a `MatMulNBits` whose kernel multiplies 8-bit integers."""
OPERANDS: Mapping[int, str] = {16: "int8_16", 32: "q8_0", 64: "int8_64", 128: "int8_128", 256: "int8_256"}
"""How the schema calls what the other factor is then rounded to, by the numbers that share a scale: as many as of the weights."""


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


def unpacked_table(vertex: Vertex, constants: Mapping[str, Array]) -> Array:
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


def unpacked_experts(vertex: Vertex, place: int, constants: Mapping[str, Array]) -> Array:
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


def _unpacked(packed: Array, bits: int) -> Array:
    """Numbers of a few bits out of bytes along the last axis, low bits first."""
    if bits == 8:
        return packed
    per, mask = 8 // bits, np.uint8((1 << bits) - 1)
    numbers: Array = np.empty((*packed.shape, per), np.uint8)
    for place in range(per):
        np.bitwise_and(packed >> np.uint8(place * bits), mask, out=numbers[..., place])
    return numbers.reshape(*packed.shape[:-1], -1)
