"""Tensors of safetensors files by name, memory-mapped: nothing is read before it is asked for, and nothing in a file can run.

A file is an 8-byte little-endian length, a JSON header of that length, and the data; the header gives each tensor's dtype, shape and
place in the data. A file whose data does not reach as far as its header says is truncated, and refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from attrs import field, frozen

from llmtrace.errors import ModelOpenError
from llmtrace.schema.sites import Array

DTYPES: dict[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I64": np.int64, "I32": np.int32,
    "I16": np.int16, "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
"""A header's names to NumPy's."""
LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""


@frozen
class Entry:
    """One tensor, as its file's header describes it."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    """First byte in the file."""
    stop: int


@frozen(eq=False)
class Tensors(Mapping[str, Array]):
    """Read-only arrays by stored name. `Tensors.entries` are the headers; indexing maps the file."""

    entries: Mapping[str, Entry]
    _maps: dict[Path, Any] = field(factory=dict, init=False, repr=False)

    def __getitem__(self, name: str) -> Array:
        """The tensor, as stored. Raises `ModelOpenError` for a type that no runtime-free reader understands."""
        entry = self.entries[name]
        if entry.dtype not in DTYPES:
            raise ModelOpenError(f"{name} in {entry.path.name} is stored as {entry.dtype}, which is not supported: convert it to BF16.")
        if entry.path not in self._maps:
            self._maps[entry.path] = np.memmap(entry.path, np.uint8, "r")
        data: Array = np.asarray(self._maps[entry.path][entry.start : entry.stop])
        found: Array = data.view(DTYPES[entry.dtype]).reshape(entry.shape)
        return found

    def __contains__(self, name: object) -> bool:
        """Without mapping it."""
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of one file. Raises `ModelOpenError` if it is empty, truncated or not a safetensors file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > LONGEST_HEADER or 8 + length > size:
                kind = "is empty" if not size else "is truncated or not a safetensors file"
                raise ModelOpenError(f"{path} {kind} ({size} bytes): fetch it again.")
            header = json.loads(file.read(length))
    except OSError as error:
        raise ModelOpenError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ModelOpenError(f"{path} is not a safetensors file: its header is not JSON.") from error
    if not isinstance(header, dict):
        raise ModelOpenError(f"{path} is not a safetensors file: its header is not an object.")
    return {name: _entry(path, name, row, 8 + length, size) for name, row in header.items() if name != "__metadata__"}


def _entry(path: Path, name: str, row: Any, data: int, size: int) -> Entry:
    try:
        shape, (start, stop) = (
            tuple(int(length) for length in row["shape"]),
            (int(place) for place in row["data_offsets"]),
        )
        dtype = str(row["dtype"])
    except (TypeError, KeyError, ValueError) as error:
        raise ModelOpenError(f"{path} is not a safetensors file: its header describes {name} badly.") from error
    if data + stop > size:
        raise ModelOpenError(f"{path} is truncated: {name} should end at byte {data + stop}, the file ends at {size}. Fetch it again.")
    if start < 0 or min(shape, default=0) < 0 or (dtype in DTYPES and stop - start != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize):
        raise ModelOpenError(f"{path} is damaged: {name} has {stop - start} bytes for {dtype} of shape {list(shape)}.")
    return Entry(path, dtype, shape, data + start, data + stop)
