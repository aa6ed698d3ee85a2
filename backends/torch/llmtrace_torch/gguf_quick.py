"""transformers' reader of GGUF files, sped up. **Quick**: the same fields, names and numbers, without the work that is done over and over.

transformers reads a file through the package gguf: three times its metadata, each element of a vocabulary as a view of a memory map
of its own, and, for each module of the model, the whole table of tensor names. Of 16 seconds for a model of 30 blocks that is 13.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import RLock
from typing import Any

import gguf
import numpy as np
from gguf import GGUFReader, GGUFValueType

_swapping = RLock()
"""Two threads that open files take turns: what stood before is what is put back."""


class QuickReader(GGUFReader):
    """The package's reader, with the elements of an array taken in one go: `bytes` where they are texts."""

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple[int, list[Any], list[int], list[GGUFValueType]]:
        """Bytes taken, the parts, which of them are the values, and the types: as the package's own has it."""
        if raw_type != GGUFValueType.ARRAY or self.byte_order != "I":
            found: tuple[int, list[Any], list[int], list[GGUFValueType]] = super()._get_field_parts(orig_offs, raw_type)
            return found
        kind, count = self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)
        inner, number, start = GGUFValueType(int(kind[0])), int(count[0]), orig_offs + 12
        types = [GGUFValueType.ARRAY, inner] if number else [GGUFValueType.ARRAY]
        if inner is GGUFValueType.STRING:
            parts, stop = self._texts(start, number)
            return stop - orig_offs, [kind, count, *parts], list(range(3, 3 + 2 * number, 2)), types
        if inner not in self.gguf_scalar_to_np:
            return super()._get_field_parts(orig_offs, raw_type)
        values = np.asarray(self._get(start, self.gguf_scalar_to_np[inner], number))
        stop = start + values.nbytes
        return stop - orig_offs, [kind, count, *values.reshape(-1, 1)], list(range(2, 2 + number)), types

    def _texts(self, start: int, number: int) -> tuple[list[Any], int]:
        """Length and bytes of each text, in turn, and where they end."""
        raw, length = memoryview(self.data), struct.Struct("<Q")  # type: ignore[arg-type]  # a memory map has its bytes
        parts: list[Any] = []
        for _ in range(number):
            (size,) = length.unpack_from(raw, start)
            parts += (size, bytes(raw[start + 8 : start + 8 + size]))
            start += 8 + size
        return parts, start


@contextmanager
def quick() -> Iterator[None]:
    """While this is entered, whoever reads a GGUF file with the package gguf reads it quickly; then all is as it was."""
    with _swapping:
        kept = gguf.GGUFReader, gguf.get_tensor_name_map
        gguf.GGUFReader, gguf.get_tensor_name_map = QuickReader, cache(kept[1])  # type: ignore[misc]
        try:
            yield
        finally:
            gguf.GGUFReader, gguf.get_tensor_name_map = kept  # type: ignore[misc]
