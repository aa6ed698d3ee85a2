"""Rounding to 8 bits: what a runtime does to activations before it multiplies them by quantised weights. **Block**: so many neighbours on
the last axis that share one scale, the 127th part of the largest. **Tensor**: all numbers of all tokens, which share a scale and a zero.

How much that costs depends on the numbers: one large channel takes the bits of its neighbours, and a product that nearly cancels shows
it most. So it is not looked up but felt: the equation is applied to its rounded input too.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llmtrace.schema.sites import Array

BLOCKS: Mapping[str, int] = {"q8_0": 32, "q8_k": 256, "int8_16": 16, "int8_64": 64, "int8_128": 128, "int8_256": 256}
"""Type of operands to the numbers in a block: ggml's `Q8_0` (and `Q8_1`), and `Q8_K`, which the K-quants are multiplied by; ONNX Runtime's,
which are as long as its blocks of weights."""
TENSOR = "uint8_tensor"
"""Type of operands that are rounded as one: ONNX's `DynamicQuantizeLinear`."""
ROUNDED = frozenset({*BLOCKS, TENSOR})
"""The types of operands of which it is felt what they cost."""
LEVELS, TENSOR_LEVELS = 127, 255
FELT = 3.0
"""How many times what rounding does to an equation's value the rounding of a runtime may do: it is the same but for ties and for how scales
are stored, which leave a tenth (ggml's Q4_1) or nothing (Q8_0, ONNX) of it between the two."""


def rounded_to(kind: str, x: Array) -> Array:
    """Numbers [token …] as they are after rounding to a type of operands, one of `ROUNDED`; whole numbers as they are.

    >>> rounded_to("uint8_tensor", np.array([[0.4, 254.6], [-0.2, 0.0]])).round(1)
    array([[  0. , 254.8],
           [  0. ,   0. ]])
    """
    return in_tensor(x) if kind == TENSOR else in_blocks(kind, x)


def in_tensor(x: Array) -> Array:
    """Numbers as they are after rounding to 256 levels between the least and the largest of all, or zero; whole numbers as they are.

    As ONNX defines `DynamicQuantizeLinear`: zero is one of the levels, and ties go to even ones.
    """
    if x.dtype.kind != "f" or not x.size:
        return x
    levels, zero, step = levels_in_tensor(x)
    found: Array = (levels - zero) * step if step > 0 else x
    return found


def levels_in_tensor(x: Array) -> tuple[Array, float, float]:
    """The levels, 0 to 255, that numbers are rounded to so, that of zero, and the step between two; a step of 0 where none is told."""
    least, most = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step = (most - least) / TENSOR_LEVELS
    if not step > 0:  # zeros, and numbers too small to have a 255th part
        return np.zeros_like(x), 0.0, 0.0
    zero = float(np.rint(-least / step))
    return np.clip(np.rint(x / step) + zero, 0, TENSOR_LEVELS), zero, step


def in_blocks(kind: str, x: Array) -> Array:
    """Numbers as they are after rounding to 8 bits in blocks along the last axes [token …]; whole numbers as they are.

    >>> in_blocks("q8_0", np.array([[127.0, 0.6, *[0.0] * 30]]))[0, :2]
    array([127.,   1.])
    """
    if x.dtype.kind != "f":
        return x
    length = BLOCKS[kind]
    rows = x.reshape(len(x), -1)
    width = rows.shape[1]
    blocks = np.pad(rows, ((0, 0), (0, -width % length))).reshape(len(x), -1, length)
    steps = np.abs(blocks).max(-1, keepdims=True) / LEVELS
    told = steps > 0  # not so for zeros, and for numbers too small to have a 127th part: they stay as they are
    levels = np.rint(np.divide(blocks, steps, out=np.zeros_like(blocks), where=told))
    rounded: Array = np.where(told, levels * steps, blocks).reshape(len(x), -1)[:, :width].reshape(x.shape)
    return rounded
