"""Signals that are still in their file: memory-mapped, and checked against their digest when they are first read."""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (makes `bfloat16` a name that NumPy knows)
import numpy as np

from llmtrace.errors import TraceFileError
from llmtrace.schema.sites import Array
from llmtrace.store.header import Place


class Mapped:
    """One array of an open file (a `Stored` array of a `Signal`)."""

    def __init__(self, path: Path, data: mmap.mmap, site: str, place: Place, sha256: str) -> None:
        self._path = path
        self._data = data
        self._site = site
        self._place = place
        self._sha256 = sha256
        self._array: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """As the header says."""
        return self._place.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the header says."""
        return np.dtype(self._place.dtype)

    def read(self) -> Array:
        """The array, read-only and still in the file. Raises `TraceFileError` if its bytes are not those that were saved."""
        if self._array is None:
            data = memoryview(self._data)[self._place.start : self._place.stop]
            if hashlib.sha256(data).hexdigest() != self._sha256:
                raise TraceFileError(
                    f"{self._path} was altered: {self._site} is not what was saved. Trace the prompt again."
                )
            self._array = np.frombuffer(data, self.dtype.newbyteorder("<")).reshape(self.shape)
        return self._array


def map_file(path: Path) -> mmap.mmap:
    """The file's bytes, read-only; the mapping lives as long as an array of it. Raises `TraceFileError`."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise TraceFileError(f"{path} cannot be read: {error}.") from error
