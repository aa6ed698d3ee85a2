"""What storing a tensor in a format costs. **Block**: numbers that share a scale; **step**: the distance of two neighbouring levels.

A rounded number is off by up to half a step, evenly, so a block's squared error is a twelfth of its step's square. That is worked out on
the reference's own numbers, not looked up: a block with one large number costs more. What a quantiser does better (K-quants search for
scales, an importance matrix weighs channels) or worse, it does by less than `MORE`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from attrs import frozen

from llmtrace.schema.precision import ROUNDOFF
from llmtrace.schema.sites import Array


@frozen
class Levels:
    """A format of integers with a scale for each block."""

    block: int
    """Numbers that share a scale."""
    bits: float
    """Of a number; uneven levels count as so many even ones."""
    spans: Literal["both", "range"] = "range"
    """Whether the levels reach from the least to the largest (`range`), or as far on both sides of zero (`both`)."""


LEVELS: Mapping[str, Levels] = {
    "q4_0": Levels(32, 4, "both"), "q4_1": Levels(32, 4), "q5_0": Levels(32, 5, "both"), "q5_1": Levels(32, 5),
    "q8_0": Levels(32, 8, "both"), "q8_1": Levels(32, 8, "both"),
    "q2_k": Levels(16, 2), "q3_k": Levels(16, 3, "both"), "q4_k": Levels(32, 4), "q5_k": Levels(32, 5), "q6_k": Levels(16, 6, "both"),
    "iq4_nl": Levels(32, 4, "both"), "iq4_xs": Levels(32, 4, "both"), "iq3_s": Levels(32, 3, "both"), "iq3_xxs": Levels(32, 3, "both"),
    "iq2_s": Levels(32, 2, "both"), "iq2_xs": Levels(32, 2, "both"), "iq2_xxs": Levels(32, 2, "both"),
    "mxfp4": Levels(32, 4, "both"),
    "int8": Levels(0, 8, "both"), "uint8": Levels(0, 8), "int4": Levels(128, 4, "both"), "uint4": Levels(128, 4),
    "int2": Levels(128, 2, "both"),
}  # fmt: skip
"""By the name that backends give a storage type, in lower case. ONNX's have blocks of the exporter's choice: of the usual ones the
largest; 0 is a scale for a whole row."""
FLOATS: Mapping[str, str] = {"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16"}
"""ggml's names of the plain types."""
MORE = 1.5
"""How many times what its format should cost a tensor may be off: quantisers differ by less (Q4_0 to Q8_0 take 0.92 to 1.01 of it)."""
SAMPLE = 1 << 19
"""Numbers of a tensor that its cost is worked out on, whole rows spread evenly."""
ROUNDED = 0.42
"""Of the unit round-off: the root mean square, relative, of rounding numbers whose last digits are even: 1/√3 at a power of two, half of it below the next."""


@frozen
class Tensor:
    """One weight of the candidate beside the reference's."""

    name: str
    """By schema name."""
    stored: str
    """The type that the candidate has it in."""
    relative_error: float
    """`‖found - expected‖ / ‖expected‖`; infinite where the shapes differ."""
    expected: float
    """What its format, and the reference's, should cost; NaN for a format that is not known here."""
    median: float
    """Of the same weight's errors in all blocks."""
    explained: bool
    """Whether the format explains the error."""
    what: str = ""
    """What was done to it, where that is recognised: `transposed`, `rows permuted`, `another block's`."""


def plain(kind: str) -> str:
    """A storage type by its plain name, in lower case.

    >>> plain("BF16"), plain("Q4_1")
    ('bfloat16', 'q4_1')
    """
    return FLOATS.get(kind.lower(), kind.lower())


def cost(kind: str, x: Array, rows: tuple[int, ...]) -> float:
    """The relative error that storing `x` in a format should cost, `rows` being the axes that blocks run along; NaN where it is not known.

    >>> round(cost("float16", np.ones((2, 32)), (1,)), 5)
    0.00021
    """
    name = plain(kind)
    if name in LEVELS:
        return _blocks(LEVELS[name], x, rows)
    return ROUNDED * ROUNDOFF[name] if name in ROUNDOFF else math.nan


def coarse(kind: str) -> bool:
    """Whether a storage type is coarser than float32."""
    return plain(kind) not in ("float64", "float32")


def _blocks(levels: Levels, x: Array, rows: tuple[int, ...]) -> float:
    others = [axis for axis in range(x.ndim) if axis not in rows]
    lines = x.transpose(*others, *rows).reshape(-1, math.prod(x.shape[axis] for axis in rows))
    flat = lines[:: max(1, lines.size // SAMPLE)].astype(np.float32)
    block = min(levels.block or flat.shape[1], flat.shape[1])
    whole = flat[:, : flat.shape[1] // block * block].reshape(len(flat), -1, block)
    if levels.spans == "range":
        steps = (whole.max(-1) - whole.min(-1)) / (2**levels.bits - 1)
    else:
        steps = np.abs(whole).max(-1) / (2 ** (levels.bits - 1) - 0.5)
    size = float((whole.astype(np.float64) ** 2).mean())
    return math.sqrt(float((steps.astype(np.float64) ** 2).mean()) / 12 / size) if size else 0.0
