"""Rotary position embedding: how fast each pair of channels turns, and the turning. **Frequency**: radians a position."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from llmtrace.schema.sites import Array
from llmtrace.spec import DynamicNtk, Linear, Llama3, LongRope, Rotary, Yarn


def frequencies(r: Rotary, length: int) -> Array:
    """Radians a position, [width / 2], for a prompt of `length` positions."""
    exponents = np.arange(0, r.width, 2) / r.width
    plain = np.asarray(r.theta**-exponents)
    match r.scaling:
        case None:
            return plain
        case Linear(factor):
            return np.asarray(plain / factor)
        case DynamicNtk(factor, context):
            stretch = factor * max(length, context) / context - (factor - 1)
            return np.asarray((r.theta * stretch ** (r.width / (r.width - 2))) ** -exponents)
        case Yarn() as y:
            return _yarn(r, y, plain)
        case Llama3() as s:
            return _llama3(s, plain)
        case LongRope(short, long, context):
            return np.asarray(plain / np.asarray(long if length > context else short))


def by_length(r: Rotary | None) -> bool:
    """Whether the frequencies change with the prompt's length: then one token's angles are not known from its position alone."""
    match r.scaling if r else None:
        case LongRope(short, long):
            return short != long
        case scaling:
            return isinstance(scaling, DynamicNtk)


def _yarn(r: Rotary, y: Yarn, plain: Array) -> Array:
    """Between the pairs that turn `fast` and `slow` times in the trained context, from unstretched to stretched."""
    low, high = (
        r.width * math.log(y.context / (turns * 2 * math.pi)) / (2 * math.log(r.theta)) for turns in (y.fast, y.slow)
    )
    if y.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, r.width - 1)
    stretched = np.clip((np.arange(r.width // 2) - low) / max(high - low, 1e-3), 0, 1)
    return np.asarray(plain * (1 - stretched) + plain / y.factor * stretched)


def _llama3(s: Llama3, plain: Array) -> Array:
    turns = s.context * plain / (2 * math.pi)
    smooth = np.clip((turns - s.low) / (s.high - s.low), 0, 1)
    return (1 - smooth) * plain / s.factor + smooth * plain


def gain(r: Rotary) -> float:
    """What the rotated channels are multiplied by: YaRN's and LongRoPE's attention factor belongs to the rotation."""
    match r.scaling:
        case Yarn(factor=factor, gain=None):
            return 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
        case Yarn(gain=float(given)) | LongRope(gain=given):
            return given
        case _:
            return 1.0


@lru_cache(maxsize=8)
def _turns(r: Rotary, positions: bytes, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Cosine and sine of the angles, times the gain, [token 1 width/2]; the same in each layer, so they are made once."""
    places = np.frombuffer(positions, np.int64)
    angle = places[:, None, None] * frequencies(r, int(places.max()) + 1)
    cos, sin = (gain(r) * f(angle).astype(dtype) for f in (np.cos, np.sin))
    return cos, -sin if r.backwards else sin


def rotate(r: Rotary | None, x: Array, positions: Array) -> Array:
    """Turn the pairs of channels of every head; `[token head d_head]` stays so."""
    if r is None:
        return x
    cos, sin = _turns(r, positions.astype(np.int64).tobytes(), x.dtype)
    turned, half = x.copy() if r.width < x.shape[-1] else np.empty_like(x), r.width // 2
    at, end = r.start, r.start + r.width
    first = slice(at, at + half) if r.layout == "half" else slice(at, end, 2)
    second = slice(at + half, end) if r.layout == "half" else slice(at + 1, end, 2)
    a, b = x[..., first], x[..., second]
    c, d = turned[..., first], turned[..., second]
    part = b * sin  # one array besides the result: new pages cost as much as the arithmetic
    np.subtract(np.multiply(a, cos, out=c), part, out=c)
    np.multiply(a, sin, out=part)
    np.add(np.multiply(b, cos, out=d), part, out=d)
    return turned
