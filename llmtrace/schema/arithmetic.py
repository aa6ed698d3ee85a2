"""What large arrays are worked on with: NumPy, or what a runtime lends, whose threads are awake while it runs."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from attrs import frozen

from llmtrace.schema.sites import Array


class Arithmetic(Protocol):
    """Operations on arrays of one floating-point type, of NumPy's. Each result is that of the formula, in another order of sums perhaps."""

    @property
    def block(self) -> int:
        """Numbers that are best worked on at once."""

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        """`a @ b`, written to `out` and returned."""

    def softmax(
        self, s: Array, sinks: Array | None, pattern: Array | None, sink: Array | None, *, shift: bool = True
    ) -> None:
        """Over the last axis of `s` and, where there are `sinks` [… 1], one imaginary number more: write what the others get to `pattern`,
        and what that one gets to `sink` […]; `s` is spoilt. Without `shift` no sum of exponentials leaves float32.
        """

    def distances(self, vectors: Array, y: Array) -> Array:
        """The L1 norm of `y - vectors` over the last axis; `vectors` are spoilt."""


@frozen
class NumPy:
    """NumPy's own."""

    block: int = 1 << 17
    """512 KiB of float32: half of a core's second cache or less."""

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        """As `Arithmetic`."""
        return np.matmul(a, b, out=out)

    def softmax(
        self, s: Array, sinks: Array | None, pattern: Array | None, sink: Array | None, *, shift: bool = True
    ) -> None:
        """As `Arithmetic`."""
        if shift:
            top = s.max(-1, keepdims=True)
            top = top if sinks is None else np.maximum(top, sinks)
            s -= top
            sinks = None if sinks is None else sinks - top
        np.exp(s, out=s)
        mass = (s @ np.ones(s.shape[-1], s.dtype))[..., None]  # a quarter of the time of `s.sum`
        if sinks is not None:
            taken = np.exp(sinks)
            mass += taken
            if sink is not None:
                sink[...] = (taken / mass)[..., 0]
        if pattern is not None:
            np.divide(s, mass, out=pattern)

    def distances(self, vectors: Array, y: Array) -> Array:
        """As `Arithmetic`."""
        np.subtract(y, vectors, out=vectors)
        found: Array = np.abs(vectors, out=vectors) @ np.ones(vectors.shape[-1], vectors.dtype)
        return found


NUMPY = NumPy()
