"""Tensors of safetensors files by name, memory-mapped: nothing is read before it is asked for, and nothing in a file can run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from attrs import field, frozen

from llmtrace.errors import ModelOpenError, shown
from llmtrace.safetensors_header import Place, UnreadableError
from llmtrace.safetensors_header import read_header as read_any
from llmtrace.schema.sites import Array

DTYPES: dict[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I64": np.int64, "I32": np.int32,
    "I16": np.int16, "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
"""A header's names to NumPy's."""


@frozen
class Entry:
    """One tensor, and the file that it lies in."""

    path: Path
    place: Place
    """As the file's header describes it."""


@frozen(eq=False)
class Tensors(Mapping[str, Array]):
    """Read-only arrays by stored name. `Tensors.entries` are the headers; indexing maps the file."""

    entries: Mapping[str, Entry]
    _maps: dict[Path, Any] = field(factory=dict, init=False, repr=False)

    def __getitem__(self, name: str) -> Array:
        """The tensor, as stored. Raises `ModelOpenError` for a type that no runtime-free reader understands."""
        entry = self.entries[name]
        if entry.place.dtype not in DTYPES:
            raise ModelOpenError(
                f"{shown(name)} in {shown(entry.path.name)} is stored as {entry.place.dtype!r:.40}, which is not supported: convert it to BF16."
            )
        if entry.path not in self._maps:
            self._maps[entry.path] = np.memmap(entry.path, np.uint8, "r")
        data: Array = np.asarray(self._maps[entry.path][entry.place.start : entry.place.stop])
        found: Array = data.view(DTYPES[entry.place.dtype]).reshape(entry.place.shape)
        return found

    def dtype(self, name: str) -> str:
        """The name of a tensor's type: NumPy's, or the file's where NumPy has none."""
        kind = self.entries[name].place.dtype
        return np.dtype(DTYPES[kind]).name if kind in DTYPES else kind

    def __contains__(self, name: object) -> bool:
        """Without mapping it."""
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of one file. Raises `ModelOpenError` if it is empty, truncated, damaged or not a safetensors file."""
    try:
        return {name: Entry(path, place) for name, place in read_any(path)[1].items()}
    except UnreadableError as error:
        raise ModelOpenError(f"{path} cannot be opened: {error}. Fetch it again.") from error
    except (OSError, ValueError) as error:
        raise ModelOpenError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
