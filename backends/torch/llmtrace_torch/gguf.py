"""GGUF files, through transformers' own reader. **Header**: what the file says of itself, checked against its size before anything
else reads it.

Layout (GGUF 2 and 3, little-endian): the magic, a version (u32), the numbers of tensors and of metadata entries (u64); the entries,
each a name, a type and a value; for each tensor its name, dimensions, type and offset; then, aligned, the data.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from attrs import field, frozen

from llmtrace.errors import ModelOpenError

SCALARS: dict[int, str] = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Metadata types of a fixed size, as `struct` calls them."""
STRING, ARRAY = 8, 9
MOST_DIMENSIONS = 4


@frozen
class TensorInfo:
    """One tensor, as the header describes it."""

    name: str
    shape: tuple[int, ...]
    """Fastest axis first, as the file has it."""
    kind: str
    """Its storage type: `F32`, `Q4_1`, …"""
    offset: int


@frozen
class Header:
    """What a GGUF file says of itself."""

    path: Path
    metadata: Mapping[str, Any]
    """Scalars and texts by key; of arrays only their length."""
    tensors: Mapping[str, TensorInfo] = field(repr=False)
    start: int
    """Byte of the file where the tensors' data begin."""

    @property
    def kinds(self) -> str:
        """Storage types in the file, the commonest (by elements) first."""
        amount: dict[str, int] = {}
        for tensor in self.tensors.values():
            amount[tensor.kind] = amount.get(tensor.kind, 0) + math.prod(tensor.shape)
        return ", ".join(sorted(amount, key=lambda kind: -amount[kind]))


class _Reader:
    """Reads a header, and never beyond the end of the file."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file = file
        self.path = path
        self.size = path.stat().st_size

    def fail(self, why: str) -> ModelOpenError:
        return ModelOpenError(f"{self.path} is truncated or not a sound GGUF file: {why}. Fetch it again.")

    def take(self, count: int) -> bytes:
        if count < 0 or self.file.tell() + count > self.size:
            raise self.fail(f"its header reaches beyond its end at byte {self.size}")
        return self.file.read(count)

    def number(self, kind: str) -> Any:
        return struct.unpack("<" + kind, self.take(struct.calcsize("<" + kind)))[0]

    def text(self) -> str:
        raw = self.take(self.number("Q"))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fail("a text in its header is not UTF-8") from error

    def value(self) -> Any:
        kind = self.number("I")
        if kind == STRING:
            return self.text()
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind != ARRAY:
            raise self.fail(f"its header has a value of the unknown type {kind}")
        inner, count = self.number("I"), self.number("Q")
        if inner in SCALARS:
            self.take(count * struct.calcsize("<" + SCALARS[inner]))
        elif inner == STRING:
            if count * 8 > self.size:
                raise self.fail(f"its header has an array of {count} texts")
            self._skip_texts(count)
        else:
            raise self.fail(f"its header has an array of the unknown type {inner}")
        return count

    def _skip_texts(self, count: int) -> None:
        """Past an array of texts: a vocabulary has some ten thousands, so this loop is kept short."""
        read, size, unpack = self.file.read, self.size, struct.Struct("<Q").unpack
        for _ in range(count):
            length = read(8)
            if len(length) < 8 or len(read(unpack(length)[0] if unpack(length)[0] <= size else 0)) < unpack(length)[0]:
                raise self.fail(f"its header reaches beyond its end at byte {size}")


def read_header(path: Path) -> Header:
    """The header of a GGUF file. Raises `ModelOpenError` if it, or the data that it announces, is not all there."""
    sizes = _block_sizes()
    try:
        with path.open("rb") as file:
            reader = _Reader(file, path)
            begins = file.read(4)
            if begins != b"GGUF"[: len(begins)]:
                raise ModelOpenError(f"{path} is not a GGUF file: it begins with {begins!r}, not with {b'GGUF'!r}.")
            if reader.size < 24:
                raise reader.fail(f"it ends at byte {reader.size}, within the first 24")
            version, tensors, entries = reader.number("I"), reader.number("Q"), reader.number("Q")
            if version not in (2, 3):
                raise ModelOpenError(
                    f"{path} is GGUF version {version}: only 2 and 3, little-endian, are read. Convert it again."
                )
            if tensors * 24 + entries * 13 > reader.size:
                raise reader.fail(
                    f"it announces {tensors} tensors and {entries} metadata entries in {reader.size} bytes"
                )
            metadata = {reader.text(): reader.value() for _ in range(entries)}
            infos = [_tensor(reader, sizes) for _ in range(tensors)]
            start = _check_data(reader, metadata, infos, sizes)
    except OSError as error:
        raise ModelOpenError(f"{path} cannot be read: {error.strerror}.") from error
    if not isinstance(metadata.get("general.architecture"), str):
        raise ModelOpenError(f"{path} does not say its general.architecture: it is not a language model.")
    return Header(path, metadata, {info.name: info for info in infos}, start)


def _tensor(reader: _Reader, sizes: Mapping[int, tuple[str, int, int]]) -> TensorInfo:
    name, dimensions = reader.text(), reader.number("I")
    if dimensions > MOST_DIMENSIONS:
        raise reader.fail(f"the tensor {name!r} has {dimensions} dimensions")
    shape = tuple(reader.number("Q") for _ in range(dimensions))
    kind, offset = reader.number("I"), reader.number("Q")
    if kind not in sizes:
        raise ModelOpenError(f"{name} in {reader.path} has the unknown storage type {kind}: update the package gguf.")
    return TensorInfo(name, shape, sizes[kind][0], offset)


def _check_data(
    reader: _Reader, metadata: Mapping[str, Any], infos: list[TensorInfo], sizes: Mapping[int, tuple[str, int, int]]
) -> int:
    """Where the data begin, once all that is announced is there."""
    align = metadata.get("general.alignment", 32)
    if not isinstance(align, int) or align < 1:
        raise reader.fail(f"its alignment is {align!r}")
    start = -(-reader.file.tell() // align) * align
    by_name = {name: (block, size) for name, block, size in sizes.values()}
    for info in infos:
        block, size = by_name[info.kind]
        stop = start + info.offset + math.prod(info.shape) // block * size
        if stop > reader.size:
            raise reader.fail(f"{info.name} should end at byte {stop}, the file ends at {reader.size}")
    return start


def _block_sizes() -> dict[int, tuple[str, int, int]]:
    """Type number to name, elements a block and bytes a block, as the package gguf has them."""
    try:
        from gguf.constants import GGML_QUANT_SIZES
    except ImportError as error:
        raise ModelOpenError(
            "A GGUF file is read with the package gguf, which is not installed: pip install gguf."
        ) from error
    return {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}
