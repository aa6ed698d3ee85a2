"""What identification shares. **Piece**: a stretch of the graph as a function of arrays; **probe**: an input of our own choosing;
**unit**: half the spacing of the numbers that the piece computes in, relative to them, so that one operation errs by a unit at most.

A piece is run on probes and held to an equation. What fits is a record; what does not is `Unfit`, with the reason: a guess is never made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from attrs import frozen

from llmtrace.schema.sites import Array

Piece: TypeAlias = Callable[[Array], Array]
"""From float32 to what the graph makes of it."""
Joint: TypeAlias = Callable[[Array, Array], Array]
"""A piece of two inputs."""

FLOAT32 = 2.0**-24
"""Unit of float32."""
FLOAT16 = 2.0**-11
"""Unit of float16."""
BFLOAT16 = 2.0**-8
"""Unit of bfloat16."""


@frozen
class Unfit:
    """No record describes the piece."""

    why: str
    """What was seen, as the end of the sentence «it is none, because …»."""


def double(array: Array) -> Array:
    """As float64: everything here is reckoned in it."""
    return np.asarray(array, np.float64)


def single(array: Array) -> Array:
    """As float32: what a piece is given."""
    return np.asarray(array, np.float32)


def floor(unit: float) -> float:
    """The spacing of the smallest numbers of the type that has this unit: no operation is more exact."""
    return 2.0**-24 if unit == FLOAT16 else 2.0**-126


def worst(found: Array, expected: Array, tolerance: Array) -> float:
    """The largest deviation in units of its tolerance; infinite where the shapes differ or a number is not finite.

    >>> worst(np.array([1.0, 2.5]), np.array([1.0, 2.0]), np.array([0.1, 0.25]))
    2.0
    """
    if found.shape != expected.shape or not np.isfinite(found).all():
        return np.inf
    return float((np.abs(found - expected) / tolerance).max(initial=0.0))
