"""Seeing what passes through modules that have no hooks, and handing it over as NumPy has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import mlx.core as mx
import numpy as np
from mlx import nn

from llmtrace.schema.sites import Array


@contextmanager
def watched(modules: Mapping[str, nn.Module]) -> Iterator[dict[tuple[str, str], mx.array]]:
    """What was passed to each module, and what it put out, by name and side. Afterwards the modules are what they were."""
    kinds = {name: type(module) for name, module in modules.items()}
    seen: dict[tuple[str, str], mx.array] = {}
    try:
        for name, module in modules.items():
            module.__class__ = _watching(kinds[name], name, seen)
        yield seen
    finally:
        for name, module in modules.items():
            module.__class__ = kinds[name]


def _watching(kind: type[nn.Module], name: str, seen: dict[tuple[str, str], mx.array]) -> type[nn.Module]:
    """The same class, but for a call that looks. An instance of it is not replaced, so whoever holds it keeps it."""

    def call(self: nn.Module, x: mx.array, *args: Any, **keywords: Any) -> mx.array:
        seen[name, "in"] = x
        seen[name, "out"] = out = kind.__call__(self, x, *args, **keywords)
        return out

    return type(kind.__name__, (kind,), {"__call__": call})


def as_numpy(array: mx.array) -> Array:
    """Compute it, and what it rests on. The same memory; bfloat16, which NumPy lacks, as `ml_dtypes` has it."""
    if array.dtype == mx.bfloat16:
        return np.array(array.view(mx.uint16), copy=False).view(ml_dtypes.bfloat16)
    return np.array(array, copy=False)
