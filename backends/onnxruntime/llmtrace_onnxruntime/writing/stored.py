"""Weights as a file has them. **Matrix**: a weight as what a row of activations is multiplied by, [in, out] or [expert, in, out]; heads side by
side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from attrs import frozen

from llmtrace.errors import ModelOpenError, OptionError
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import needed
from llmtrace.spec import ModelSpec
from llmtrace_onnxruntime.writing.blocks import levels, unpacked

KINDS = ("float32", "float16", "int4")
"""What weights are stored in. `float16` computes in it too; `int4` keeps all but large matrices in float32, and computes in that."""
LARGE = ("W_Q", "W_K", "W_V", "W_O", "W_gate", "W_in", "W_out", "W_E", "W_U")
"""Last parts of the names of weights that have four bits in `int4`."""
HEADS = ("head", "kv_head")


class Model(Protocol):
    """What is written: a `llmtrace.testing.TinyModel` is one."""

    @property
    def spec(self) -> ModelSpec:
        """What it is."""

    @property
    def weights(self) -> Mapping[str, Array]:
        """By schema name."""


@frozen
class Row:
    """What the schema says of one weight."""

    axes: tuple[str, ...]
    shape: tuple[int, ...]


class Weights:
    """A model's weights by schema name, held to the spec, in the shapes that a graph has use for."""

    def __init__(self, model: Model) -> None:
        self._arrays = model.weights
        self._rows = {weight.name: Row(weight.axes, weight.shape) for weight, _ in needed(model.spec)}

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    @property
    def names(self) -> tuple[str, ...]:
        """Of all that the spec's equations read."""
        return tuple(self._rows)

    def __getitem__(self, name: str) -> Array:
        """As the schema has it, float32. Raises `ModelOpenError` for one that the model lacks, or has in another shape."""
        row = self._rows[name]
        if name not in self._arrays:
            raise ModelOpenError(f"The model to be written has no weight {name}, and its spec says that there is one.")
        array = np.asarray(self._arrays[name], np.float32)
        if array.shape != row.shape:
            raise ModelOpenError(
                f"The weight {name} of the model to be written has shape {list(array.shape)}; its spec makes it {list(row.shape)}."
            )
        return array

    def matrix(self, name: str) -> Array:
        """[in, out], or with a leading axis of experts. The embedding is [d_model, vocab]."""
        return as_matrix(self._rows[name], self[name])

    def row(self, name: str) -> Row:
        """What the schema says of it."""
        return self._rows[name]


def as_matrix(row: Row, array: Array) -> Array:
    """A weight of the schema as a matrix."""
    if row.axes[0] in HEADS:
        inner = row.axes[1] == "d_model"
        return array.transpose(1, 0, 2).reshape(array.shape[1], -1) if inner else array.reshape(-1, array.shape[-1])
    return array.T if row.axes[0] == "vocab" else array


def _as_weight(row: Row, matrix: Array) -> Array:
    """The other way round."""
    if row.axes[0] in HEADS and row.axes[1] == "d_model":
        heads, d_model, width = row.shape
        return matrix.reshape(d_model, heads, width).transpose(1, 0, 2)
    return matrix.T if row.axes[0] == "vocab" else matrix.reshape(row.shape)


def stored(model: Model, kind: str = "float32") -> Mapping[str, Array]:
    """The weights that a file of this kind computes with, by schema name, float32: rounded, and of `int4` what the levels stand for.

    Raises `OptionError` for another kind, and what `write_onnx` raises for weights that cannot be written so.
    """
    check_kind(kind)
    weights = Weights(model)
    return {name: _rounded(weights, name, kind) for name in weights.names}


def check_kind(kind: str) -> None:
    """Raise `OptionError` for a kind that there is not."""
    if kind not in KINDS:
        raise OptionError(f"A model is written as {', '.join(KINDS)}, not as {kind!r}.")


def is_large(name: str) -> bool:
    """Whether a weight has four bits in `int4`."""
    return name.rpartition(".")[2] in LARGE


def _rounded(weights: Weights, name: str, kind: str) -> Array:
    array = weights[name]
    if kind == "float16":
        return array.astype(np.float16).astype(np.float32)
    if kind != "int4" or not is_large(name):
        return array
    row, matrix = weights.row(name), weights.matrix(name)
    if matrix.ndim == 3:
        return np.stack([unpacked(*levels(each)) for each in matrix])
    return _as_weight(row, unpacked(*levels(matrix)))
