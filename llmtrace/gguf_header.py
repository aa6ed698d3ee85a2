"""The header of a GGUF file, read strictly: what the file says of itself, checked against its size before anything else reads it.

Layout (GGUF 2 and 3, little-endian): the magic, a version (u32), the numbers of tensors and of metadata entries (u64); the entries,
each a name, a type and a value; for each tensor its name, dimensions, type and **offset**; then, aligned, the data. An offset counts
from where the data begin. A **block** is the run of elements that a storage type packs together.
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve, field, frozen
from numpy.typing import NDArray

from llmtrace.errors import ModelOpenError, shown

SCALARS: dict[int, str] = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
"""Metadata types of a fixed size, as `struct` calls them."""
BOOL, STRING, ARRAY = 7, 8, 9
MOST_DIMENSIONS = 4
LONGEST_NAME = 65_535
"""Bytes of a key; the format's own limit."""
MOST_ELEMENTS = 2**63 - 1
BLOCKS: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip
"""Storage type by its number: name, elements of a block, bytes of a block."""
LINE = 8192
"""Elements that are read in one step: the numbers and their bytes stay in a core's cache."""


@frozen
class TensorInfo:
    """One tensor, as the header describes it."""

    name: str
    shape: tuple[int, ...]
    """Fastest axis first, as the file has it."""
    kind: str
    """Its storage type: `F32`, `Q4_1`, …"""
    offset: int
    """Bytes from where the tensors' data begin."""
    size: int
    """Bytes that it takes."""
    path: Path = Path()
    """The file that has it."""
    start: int = 0
    """Byte of that file where its tensors' data begin."""


@frozen
class ArrayInfo:
    """An array of the metadata that is still in the file."""

    kind: int
    """The type of its elements, by number."""
    count: int
    """How many they are."""
    start: int
    """Byte of the file where the first begins."""


@frozen
class Header:
    """What a GGUF file says of itself."""

    path: Path
    metadata: Mapping[str, Any]
    """Scalars and texts, by key."""
    arrays: Mapping[str, ArrayInfo] = field(repr=False)
    """Arrays by key; `array` reads one."""
    tensors: Mapping[str, TensorInfo] = field(repr=False)
    start: int
    """Byte of the file where the tensors' data begin."""
    paths: tuple[Path, ...]
    """All files of the model: several, where it was split (`gguf_split`)."""

    @property
    def architecture(self) -> str:
        """What the file calls its architecture: `llama`."""
        return str(self.metadata["general.architecture"])

    @property
    def kinds(self) -> str:
        """Storage types in the file, the commonest (by elements) first."""
        amount: dict[str, int] = {}
        for tensor in self.tensors.values():
            amount[tensor.kind] = amount.get(tensor.kind, 0) + math.prod(tensor.shape)
        return ", ".join(sorted(amount, key=lambda kind: -amount[kind]))

    def packed(self, name: str) -> NDArray[np.uint8]:
        """The bytes of one tensor as they are stored [line bytes]: memory-mapped, and nothing is kept.

        A line is of whole rows, several where they are short: readers go line by line, and every step costs a call.
        """
        info = self.tensors[name]
        rows = math.prod(info.shape[1:])
        together = next(n for n in range(max(1, LINE // info.shape[0]), 0, -1) if rows % n == 0)
        lines = (rows // together, info.size // rows * together)
        mapped = np.memmap(info.path, np.uint8, "r", info.start + info.offset, lines)
        return np.asarray(mapped)  # a plain array, still mapped: every slice of a `memmap` costs a call in Python

    def array(self, key: str) -> list[Any]:
        """The elements of an array of the metadata: a vocabulary's tokens, say. Read from the file on each call.

        Texts that are not UTF-8 have their stray bytes as surrogate escapes. Raises `KeyError` for a key that is no array,
        `ModelOpenError` if the file is not what it was.
        """
        found = self.arrays[key]
        with _mapped(self.path) as reader:
            reader.at, reader.field = found.start, key
            if found.kind == STRING:
                return [raw.decode("utf-8", "surrogateescape") for raw in reader.texts(found.count)]
            return [bool(value) if found.kind == BOOL else value for value in reader.numbers(found.kind, found.count)]


class _Reader:
    """Reads a header, and never beyond the end of the file."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data = data
        self.path = path
        self.size = len(data)
        self.at = 0
        self.field = ""
        """What is being read, for messages."""

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.data.close()

    def fail(self, why: str) -> ModelOpenError:
        return ModelOpenError(f"{self.path} is truncated or not a sound GGUF file: {why}. Fetch it again.")

    def beyond(self, wanted: int) -> ModelOpenError:
        where = f" in {self.field}" if self.field else ""
        return self.fail(
            f"its header{where} reaches from byte {self.at} by {wanted} beyond its end at byte {self.size}"
        )

    def skip(self, count: int) -> int:
        """Go on by some bytes; returns where they begin."""
        start = self.at
        if start + count > self.size:
            raise self.beyond(count)
        self.at = start + count
        return start

    def number(self, kind: str) -> Any:
        return struct.unpack_from("<" + kind, self.data, self.skip(struct.calcsize("<" + kind)))[0]

    def text(self) -> str:
        start = self.skip(self.number("Q"))
        try:
            return self.data[start : self.at].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fail(f"the text at byte {start} of its header is not UTF-8") from error

    def name(self, what: str) -> str:
        found = self.text()
        if not found or len(found) > LONGEST_NAME:
            raise self.fail(f"the name of the {what} before byte {self.at} has {len(found)} characters")
        self.field = shown(found)
        return found

    def numbers(self, kind: int, count: int) -> tuple[Any, ...]:
        width = struct.calcsize("<" + SCALARS[kind])
        return struct.unpack_from(f"<{count}{SCALARS[kind]}", self.data, self.skip(count * width))

    def texts(self, count: int) -> Iterator[bytes]:
        for _ in range(count):
            start = self.skip(self.number("Q"))
            yield self.data[start : self.at]

    def value(self) -> Any:
        """A scalar, a text, or an array, which is left in the file."""
        kind = self.number("I")
        if kind == STRING:
            return self.text()
        if kind == BOOL:
            byte = self.number("B")
            if byte > 1:
                raise self.fail(f"{self.field} at byte {self.at - 1} is neither true nor false but {byte}")
            return bool(byte)
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind != ARRAY:
            raise self.fail(f"{self.field} has the unknown type {kind}")
        inner, count = self.number("I"), self.number("Q")
        found = ArrayInfo(inner, count, self.at)
        if inner in SCALARS:
            self.skip(count * struct.calcsize("<" + SCALARS[inner]))
        elif inner == STRING:
            self._skip_texts(count)
        else:
            raise self.fail(f"{self.field} is an array of the unknown type {inner}")
        return found

    def _skip_texts(self, count: int) -> None:
        """Past an array of texts: a vocabulary has some hundred thousands, so this loop is kept short."""
        if count * 8 > self.size - self.at:
            raise self.fail(f"{self.field} is an array of {count} texts in {self.size - self.at} bytes")
        unpack, data, at, last = struct.Struct("<Q").unpack_from, self.data, self.at, self.size - 8
        for _ in range(count):
            if at > last:
                break
            at += 8 + unpack(data, at)[0]
        else:
            if at <= self.size:
                self.at = at
                return
        raise self.fail(f"{self.field} reaches beyond its end at byte {self.size}")

    def tensor(self) -> TensorInfo:
        name, dimensions = self.name("tensor"), self.number("I")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise self.fail(f"the tensor {self.field} has {dimensions} dimensions")
        shape = self.numbers(10, dimensions)
        number, offset = self.number("I"), self.number("Q")
        if number not in BLOCKS:
            raise ModelOpenError(
                f"{self.path} stores {self.field} as the type {number}, which is unknown here: convert the file to another type."
            )
        kind, block, size = BLOCKS[number]
        elements = math.prod(shape)
        if not 0 < elements <= MOST_ELEMENTS or shape[0] % block:
            raise self.fail(
                f"the tensor {self.field} of shape {shown(list(shape))} cannot be stored as {kind}, {block} at a time"
            )
        return TensorInfo(name, shape, kind, offset, elements // block * size)


def read_header(path: Path) -> Header:
    """The header of a GGUF file. Raises `ModelOpenError` if it, or the data that it announces, is not all there."""
    return check_named(read_part(path))


def check_named(header: Header) -> Header:
    """The same, if it says what architecture it is of. Raises `ModelOpenError` if not."""
    if not isinstance(header.metadata.get("general.architecture"), str):
        raise ModelOpenError(f"{header.path} does not say its general.architecture: it is not a language model.")
    return header


def read_part(path: Path) -> Header:
    """The header of a file that may be a part of a model, and then says nothing else. Raises as `read_header` does."""
    with _mapped(path) as reader:
        version, tensors, entries = reader.number("I"), reader.number("Q"), reader.number("Q")
        if version not in (2, 3):
            raise ModelOpenError(
                f"{path} is GGUF version {version}: only 2 and 3, little-endian, are read. Convert it again."
            )
        if tensors * 24 + entries * 13 > reader.size:
            raise reader.fail(f"it announces {tensors} tensors and {entries} metadata entries in {reader.size} bytes")
        metadata: dict[str, Any] = {}
        arrays: dict[str, ArrayInfo] = {}
        for _ in range(entries):
            key = reader.name("metadata entry")
            if key in metadata or key in arrays:
                raise reader.fail(f"its metadata have {reader.field} twice")
            value = reader.value()
            if isinstance(value, ArrayInfo):
                arrays[key] = value
            else:
                metadata[key] = value
        infos: dict[str, TensorInfo] = {}
        for _ in range(tensors):
            info = reader.tensor()
            if info.name in infos:
                raise reader.fail(f"it has the tensor {reader.field} twice")
            infos[info.name] = info
        start = _check_data(reader, metadata.get("general.alignment", 32), infos)
    placed = {name: evolve(info, path=path, start=start) for name, info in infos.items()}
    return Header(path, metadata, arrays, placed, start, (path,))


def _mapped(path: Path) -> _Reader:
    """A reader of a file that begins as a GGUF file does, past its magic."""
    try:
        with path.open("rb") as file:
            begins, size = file.read(4), path.stat().st_size
            if begins != b"GGUF"[: len(begins)]:
                raise ModelOpenError(f"{path} is not a GGUF file: it begins with {begins!r}, not with {b'GGUF'!r}.")
            if size < 24:
                raise ModelOpenError(
                    f"{path} is truncated or not a sound GGUF file: it ends at byte {size}, within the first 24. Fetch it again."
                )
            reader = _Reader(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), path)
    except OSError as error:
        raise ModelOpenError(f"{path} cannot be read: {error.strerror}.") from error
    reader.at = 4
    return reader


def _check_data(reader: _Reader, align: Any, infos: Mapping[str, TensorInfo]) -> int:
    """Where the data begin, once all that is announced is there, aligned and one after the other."""
    if type(align) is not int or align < 1 or align & (align - 1):
        raise reader.fail(f"its general.alignment is {shown(align)}, which is no power of two")
    start = -(-reader.at // align) * align
    end, before = 0, ""
    for info in sorted(infos.values(), key=lambda info: (info.offset, info.size)):
        if info.offset % align:
            raise reader.fail(f"{shown(info.name)} has the offset {info.offset}, which {align} does not divide")
        if info.offset < end:
            raise reader.fail(f"{shown(info.name)} at offset {info.offset} overlaps {before}, which ends at {end}")
        end, before = info.offset + info.size, shown(info.name)
        if start + end > reader.size:
            raise reader.fail(f"{before} should end at byte {start + end}, the file ends at {reader.size}")
    return start
