"""Norms: `scale` is the denominator, `normalized` the quotient, `out` what is read on.

They stand before a branch (`ln1`), after it (`attn_post`), and on q and k (`attn.q_norm`); a norm knows the axes of what it reads.
"""

from __future__ import annotations

import numpy as np

from llmtrace.schema.functions import affine
from llmtrace.schema.sites import Array, site, weights
from llmtrace.spec import Norm

weights(
    Norm,
    w=lambda n: f"{n.each} {n.over}".strip() if n.weight else None,
    b=lambda n: f"{n.each} {n.over}".strip() if n.bias else None,
)


def _as_read(n: Norm, reads: tuple[str, ...]) -> str:
    return " ".join(reads)


def _one_each(n: Norm, reads: tuple[str, ...]) -> str:
    """The axes with a 1 for each that the mean runs over."""
    return " ".join("1" if axis in n.over.split() else axis for axis in reads)


def _axes(n: Norm) -> tuple[int, ...]:
    return tuple(range(-len(n.over.split()), 0))


def centre(n: Norm, x: Array) -> Array:
    """`x` minus its mean where the norm is a layer norm, else `x`."""
    return np.asarray(x - x.mean(_axes(n), keepdims=True)) if n.centred else x


@site(_one_each)
def scale(n: Norm, x: Array) -> Array:
    """`sqrt(mean(x²) + eps)`, of the centred `x` for a layer norm."""
    return np.asarray(np.sqrt((centre(n, x) ** 2).mean(_axes(n), keepdims=True) + n.eps))


@site(_as_read)
def normalized(n: Norm, x: Array, scale: Array) -> Array:
    """`x / scale`, centred for a layer norm."""
    return centre(n, x) / scale


@site(_as_read)
def out(n: Norm, normalized: Array, w: Array | None = None, b: Array | None = None) -> Array:
    """`normalized * w + b`, where there are such weights."""
    return affine(normalized, w, b)


def apply(n: Norm | None, x: Array, w: Array | None = None, b: Array | None = None) -> Array:
    """The whole norm, for places that have no sites of their own."""
    return x if n is None else affine(normalized(n, x, scale(n, x)), w, b)
