"""Sums of 16 bits, as x86's `vpmaddubsw` makes them of products of a uint8 and an int8, two and two: what 16 bits do not hold is cut off. ONNX
Runtime's kernels for AVX2 multiply by it. No runtime is needed here.
"""

from __future__ import annotations

import numpy as np

from llmtrace.schema.sites import Array

CUT = np.iinfo(np.int16)
"""What a sum of two products may be."""
MOST = CUT.max // 255
"""What two neighbours of a column may come to, up or down: 255 times that is no more than 16 bits hold."""
AT_ONCE = 1 << 20
"""Numbers of a matrix that are looked at in one go."""


def can_saturate(matrix: Array, *, moved: bool = False) -> bool:
    """Whether 255 times two neighbours in a column of int8 matrices [… in, out], or of one column [in], is more than 16 bits hold. `moved`: whether
    they are multiplied in another shape than this, so that any two may be neighbours.
    """
    if matrix.dtype != np.int8 or not matrix.size:
        return False
    if moved:
        return 2 * max(int(matrix.max()), -int(matrix.min())) > MOST
    columns = matrix.reshape(-1, *(matrix.shape[-2:] if matrix.ndim > 1 else (len(matrix), 1)))
    rows = 2 * max(1, AT_ONCE // (2 * columns.shape[2]))
    for one in columns:
        for begin in range(0, len(one) - 1, rows):
            some = one[begin : begin + rows].astype(np.int16)
            if (np.abs(some[: len(some) // 2 * 2 : 2] + some[1::2]) > MOST).any():
                return True
    return False


def excess(levels: Array, matrix: Array) -> Array:
    """By how much sums of uint8 levels (int32) [token, in] with int8 levels (int16) [in, out] are more than they are where two neighbours are added in
    16 bits: [token, out], whole numbers.
    """
    found = np.zeros((len(levels), matrix.shape[1]), np.int64)
    pairs = matrix.shape[0] // 2
    even, odd = matrix[: 2 * pairs : 2], matrix[1 : 2 * pairs : 2]
    can = np.abs(even + odd) > MOST
    for pair in np.flatnonzero(can.any(1)):
        columns = np.flatnonzero(can[pair])
        one, other = (np.outer(levels[:, 2 * pair + at], part[pair, columns]) for at, part in enumerate((even, odd)))
        found[:, columns] += one + other - np.clip(one + other, CUT.min, CUT.max)
    return found
