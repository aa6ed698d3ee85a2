"""Weights of four bits, as ONNX Runtime's `MatMulNBits` and `GatherBlockQuantized` read them. **Block**: so many neighbours of a column that
share one scale; **level**: a whole number from 1 to 15, which stands for `(level - 8) * scale`.
"""

from __future__ import annotations

import numpy as np

from llmtrace.errors import UnsupportedModelError
from llmtrace.schema.sites import Array

BLOCK, BITS = 32, 4
ZERO, MOST = 8, 7


def levels(matrix: Array) -> tuple[Array, Array]:
    """Levels [out, block, BLOCK] and scales [out, block] of a matrix [in, out], rounded symmetrically to the nearest.

    Raises `UnsupportedModelError` where a column is no whole number of blocks.
    """
    length, columns = matrix.shape
    if length % BLOCK:
        raise UnsupportedModelError(f"Columns of {length} weights are no whole blocks of {BLOCK}, as int4 has them.")
    rows = matrix.T.reshape(columns, length // BLOCK, BLOCK).astype(np.float32)
    scales = np.abs(rows).max(-1) / np.float32(MOST)
    steps = np.divide(rows, scales[..., None], out=np.zeros_like(rows), where=scales[..., None] > 0)
    return (np.rint(steps).clip(-MOST, MOST) + ZERO).astype(np.uint8), scales


def packed(levels: Array) -> Array:
    """Two levels a byte, the first in the low half: [out, block, BLOCK / 2]."""
    return np.asarray(levels[..., ::2] | levels[..., 1::2] << BITS)


def unpacked(levels: Array, scales: Array) -> Array:
    """What they stand for: the matrix [in, out], float32."""
    values = (levels.astype(np.float32) - ZERO) * scales[..., None]
    return np.ascontiguousarray(values.reshape(len(values), -1).T)
