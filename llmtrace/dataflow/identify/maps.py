"""Re-arrangements: which token and which column of its input each element of a piece's output shows.

The input holds whole numbers that count tokens, then such that count columns, as many digits at a time as the type holds exactly; last
come random numbers, which a sum, a product or a padding cannot pass off as a re-arrangement.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from llmtrace.dataflow.identify.measured import FLOAT32, Piece, Unfit, double, single
from llmtrace.schema.sites import Array


@frozen(eq=False)
class IndexMap:
    """Where each element comes from; both arrays have the shape of the output."""

    token: Array
    """Its row of the input."""
    column: Array
    """Its column of the input."""


def find_map(piece: Piece, tokens: int, columns: int, *, unit: float = FLOAT32) -> IndexMap | Unfit:
    """The re-arrangement that a piece makes of `[token column]`."""
    base = int(1 / unit)
    grid = np.indices((tokens, columns))
    found = []
    for axis, count in ((0, tokens), (1, columns)):
        index: Array | None = None
        place = 1
        while place < count or index is None:
            digit = double(piece(single(grid[axis] // place % base)))
            if (
                not np.isfinite(digit).all()
                or (digit != np.round(digit)).any()
                or (digit < 0).any()
                or (digit >= base).any()
            ):
                return Unfit(f"its output holds numbers that are no {('token', 'column')[axis]} of the input")
            if index is not None and index.shape != digit.shape:
                return Unfit("the shape of its output depends on its input's numbers")
            index = digit * place if index is None else index + digit * place
            place *= base
        if (index >= count).any():
            return Unfit(f"its output holds numbers that are no {('token', 'column')[axis]} of the input")
        found.append(index.astype(np.int64))
    rng = np.random.default_rng(0)
    drawn = rng.integers(base // 2, base, (tokens, columns)) * rng.choice([-1.0, 1.0], (tokens, columns))
    shown = double(piece(single(drawn)))
    if not found[0].shape == found[1].shape == shown.shape:
        return Unfit("the shape of its output depends on its input's numbers")
    if (shown != drawn[found[0], found[1]]).any():
        return Unfit("its output shows more of its input than one element each, or changes it")
    return IndexMap(found[0], found[1])
