"""Whether two numbers of two specs are the same. **Held**: a number that a 16-bit type has exactly, as one that was stored in it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from ml_dtypes import bfloat16

from llmtrace.comparison.formats import plain

Alike: TypeAlias = Callable[[float, float], bool]
"""The reference's number, the candidate's; whether they are the same."""
HALF: Mapping[str, np.dtype[Any]] = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(bfloat16)}
"""The 16-bit types."""


def same(a: float, b: float) -> bool:
    """Whether two numbers are the same but for rounding to float32.

    >>> same(1e-5, float(np.float32(1e-5))), same(1e-6, 1.01328e-06)
    (True, False)
    """
    return abs(a - b) <= 1e-6 * max(abs(a), abs(b))


def rounded_alike(ours: str, theirs: str) -> Alike:
    """Whether two numbers are the same, or one is what the other is rounded to in the type of its own side's weights, `ours` or `theirs`.

    A graph in float16 holds its epsilon in float16, too. A number that the type does not hold was not stored in it, and is what it says.

    >>> alike = rounded_alike("float32", "float16")
    >>> alike(1e-6, float(np.float16(1e-6))), alike(1e-6, 1.1e-6), alike(float(np.float16(1e-6)), 1e-6)
    (True, False, False)
    """
    mine, its = _half(ours), _half(theirs)

    def alike(reference: float, candidate: float) -> bool:
        return (
            same(reference, candidate)
            or (its is not None and _rounds_to(reference, candidate, its))
            or (mine is not None and _rounds_to(candidate, reference, mine))
        )

    return alike


def _half(weights: str) -> np.dtype[Any] | None:
    """The 16-bit type among those that a file's weights have, if there is one."""
    found = {plain(word) for word in re.split(r"[,\s]+", weights)}
    return next((HALF[name] for name in HALF if name in found), None)


def _rounds_to(number: float, held: float, kind: np.dtype[Any]) -> bool:
    with np.errstate(over="ignore", under="ignore"):
        rounded, again = (float(np.asarray(each).astype(kind)) for each in (number, held))
    return rounded == again and same(again, held)
