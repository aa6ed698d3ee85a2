"""Scalar functions that the equations share; they keep the floating-point type of their input."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from llmtrace.schema.sites import Array

_erf = np.frompyfunc(math.erf, 1, 1)


def erf(x: Array) -> Array:
    """The error function, in double precision."""
    return np.asarray(_erf(np.asarray(x, np.float64)), np.float64).astype(x.dtype)


def sigmoid(x: Array) -> Array:
    """`1 / (1 + exp(-x))`, without overflow, and as exact for large negative `x`."""
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, e) / (1 + e))


def _gelu_tanh(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


def _gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + erf(x / math.sqrt(2))))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu2": lambda x: np.maximum(x, 0) ** 2,
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "silu": lambda x: x * sigmoid(x),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "softplus": lambda x: np.logaddexp(0, x),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "quick_gelu": lambda x: x * sigmoid(1.702 * x),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "gelu_10": lambda x: np.clip(_gelu(x), -10, 10),
    "laplace": lambda x: 0.5 * (1 + erf((x - 0.707107) / (0.282095 * math.sqrt(2)))),
}
"""What an MLP's `act` may name; arXiv 1606.08415 for GELU, 1710.05941 for SiLU, 2109.08668 for the squared ReLU."""


def xielu(x: Array, alpha_p: Array, alpha_n: Array, beta: Array, eps: Array) -> Array:
    """`alpha_p x² + beta x` for positive x, else `alpha_n (exp(min(x, eps)) - 1 - x) + beta x` (arXiv 2411.13010, eq. 11); each number [1]."""
    return np.asarray(beta * x + np.where(x > 0, alpha_p * x * x, alpha_n * (np.expm1(np.minimum(x, eps)) - x)))


def log_softmax(logits: Array) -> Array:
    """`ln softmax` over the last axis, float64 whatever comes in."""
    x = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    x -= np.log(np.exp(x).sum(-1, keepdims=True))
    return x


def softmax(x: Array) -> Array:
    """Over the last axis; rows may hold -inf but not only -inf."""
    e = np.asarray(x - x.max(-1, keepdims=True))  # scores are large: each array more costs as much as the arithmetic
    np.exp(e, out=e)
    e /= e.sum(-1, keepdims=True)
    return e


def softcap(x: Array, cap: float | None) -> Array:
    """`cap * tanh(x / cap)` (Gemma 2, arXiv 2408.00118, §2)."""
    return x if cap is None else cap * np.tanh(x / cap)


def plus(x: Array, bias: Array | None) -> Array:
    """`x + bias`, where there is one."""
    return x if bias is None else x + bias


def affine(x: Array, weight: Array | None, bias: Array | None) -> Array:
    """`x * weight + bias`, either of which may be absent."""
    return plus(x if weight is None else x * weight, bias)
