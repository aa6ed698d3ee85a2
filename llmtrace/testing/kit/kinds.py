"""Types of numbers, as NumPy's: whether a number could have been stored as one."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np

from llmtrace.schema.sites import Array

TYPES: Mapping[str, type] = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32}
"""By name."""
ALSO = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
"""What formats call them."""


def kind_of(name: str) -> type | None:
    """The type of this name, in whichever letters; None for one that NumPy has not (blocks of four bits)."""
    return TYPES.get(ALSO.get(name.lower(), name.lower()))


def are(kind: type, values: Array) -> bool:
    """Whether all of the numbers are of a type."""
    with np.errstate(over="ignore"):
        return np.array_equal(values.astype(kind).astype(np.float64), values)
