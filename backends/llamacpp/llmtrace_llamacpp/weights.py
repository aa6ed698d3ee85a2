"""Weights as they are in the file, dequantised when they are looked at. **Packed**: a tensor that is still in the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from attrs import field, frozen

from llmtrace.errors import ModelOpenError
from llmtrace.families.native import Family
from llmtrace.families.weights import weights_from
from llmtrace.fingerprint import fingerprint
from llmtrace.gguf_header import Header, TensorInfo
from llmtrace.gguf_split import read_whole
from llmtrace.schema.sites import Array
from llmtrace.spec import ModelSpec
from llmtrace_llamacpp.architectures import ARCHITECTURES
from llmtrace_llamacpp.metadata import described

TURNED = tuple(f"attn_{name}.{kind}" for name in ("q", "k", "qkv") for kind in ("weight", "bias"))
"""What a converter moves the rows of, where it moves any."""


@frozen
class Packed:
    """One tensor in the file, with the shape and type that it will have; `numpy.asarray` reads it, and nothing is kept."""

    header: Header
    info: TensorInfo
    heads: tuple[int, ...] = ()
    """In how many heads the converter moved the rows; of q, k and v in one tensor those of each; 0, or none: they stand as they should."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Slowest axis first."""
        return self.info.shape[::-1]

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """What it is dequantised to."""
        return np.dtype(np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Read it, undo the packing, and undo what the conversion to GGUF did to its rows.

        Raises `ModelOpenError` for a storage type that the package gguf cannot dequantise.
        """
        kind = gguf.GGMLQuantizationType[self.info.kind]
        raw = self.header.packed(self.info.name)
        try:
            array: Array = np.asarray(gguf.dequantize(raw, kind), np.float32)
        except NotImplementedError as error:
            raise ModelOpenError(
                f"{self.info.name} in {self.info.path} is stored as {self.info.kind}, which the package gguf does not dequantise: update it."
            ) from error
        whole = turned(array.reshape(self.shape), self.heads, as_halves)
        return whole.astype(dtype or np.float32, copy=False)


@frozen(slots=False)
class GgufFile:
    """An open GGUF file. Nothing but its header has been read until a weight is asked for."""

    header: Header
    spec: ModelSpec
    """What llama.cpp computes from it."""
    family: Family = field(repr=False)
    """Where the file keeps each weight."""
    weights: Mapping[str, Array] = field(repr=False)
    """By schema name, read-only float32; read, dequantised and arranged on each access."""
    stored: Mapping[str, str] = field(repr=False)
    """The storage type of each: `Q4_1`, `F32`, …"""

    @cached_property
    def fingerprint(self) -> str:
        """Which model this is (`llmtrace.fingerprint`)."""
        return fingerprint(self.header.paths)


def open_gguf(path: Path) -> GgufFile:
    """Read the header, those of all parts where the file was split, and check that every weight that the equations read is there, and
    nothing else.

    Raises `ModelOpenError`, or `UnsupportedModelError` for an architecture or feature that the equations do not express.
    """
    header = read_whole(Path(path))
    spec, family = described(header)
    tensors = packed(header, spec)
    weights = weights_from(spec, family, tensors, str(path), said_by="its header")
    stored = {name: tensors[place.names[0]].info.kind for name, place in weights.places.items()}
    return GgufFile(header, spec, family, weights, stored)


def packed(header: Header, spec: ModelSpec) -> dict[str, Packed]:
    """Every tensor of the file, by its name there."""
    moved = ARCHITECTURES[header.architecture].permuted
    return {
        name: Packed(header, info, heads_of(spec, name) if moved and name.endswith(TURNED) else ())
        for name, info in header.tensors.items()
    }


def heads_of(spec: ModelSpec, name: str) -> tuple[int, ...]:
    """In how many heads the rows of a tensor of attention are moved, matrix by matrix."""
    layer = name.split(".")[1]
    attention = spec.blocks[int(layer)].attention if layer.isdecimal() and int(layer) < len(spec.blocks) else None
    if attention is None:
        return ()
    if ".attn_qkv." in name:
        return (attention.heads, attention.kv_heads, 0)
    return (attention.heads if ".attn_q." in name else attention.kv_heads,)


def turned(array: Array, heads: tuple[int, ...], how: Callable[[Array, int], Array]) -> Array:
    """A tensor with the rows of its heads moved by `as_halves` or `as_pairs`; where it has several matrices, the last has as many rows
    as the one before it.
    """
    if len(heads) < 2:
        return how(array, heads[0]) if heads else array
    each = len(array) // (heads[0] + 2 * heads[1])
    q, k, v = np.split(array, [heads[0] * each, (heads[0] + heads[1]) * each])
    return np.concatenate([how(q, heads[0]), how(k, heads[1]), v])


def as_halves(array: Array, heads: int) -> Array:
    """Rows as the family has them, where the file has them as pairs of neighbours; `heads` 0 leaves them.

    >>> as_halves(np.array([0, 2, 1, 3, 4, 6, 5, 7]), 2)
    array([0, 1, 2, 3, 4, 5, 6, 7])
    """
    return _moved(array, heads, (-1, 2)) if heads else array


def as_pairs(array: Array, heads: int) -> Array:
    """The other way round: what a converter does (`permute` in llama.cpp's).

    >>> as_pairs(np.arange(8), 2)
    array([0, 2, 1, 3, 4, 6, 5, 7])
    """
    return _moved(array, heads, (2, -1)) if heads else array


def _moved(array: Array, heads: int, split: tuple[int, int]) -> Array:
    whole = array.reshape(heads, *split, *array.shape[1:])
    return np.ascontiguousarray(whole.swapaxes(1, 2)).reshape(array.shape)
