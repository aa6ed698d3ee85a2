"""A graph without its weights. **Wire format**: a protobuf message is a row of fields, each a number, a kind and a value; a message in a
message is a value like any other, so large ones can be stepped over unread.

Weights that stand in the `.onnx` file itself stay there: what is parsed says at which offset they are, as if they were external data.
A file of gigabytes is then opened as quickly as a small one, and its weights are mapped, not copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap
from typing import TypeAlias

Buffer: TypeAlias = bytes | mmap
Field: TypeAlias = tuple[int, int, int, int, int]
"""Number, kind, where the field begins, where its value begins and ends."""

VARINT, WIDE, BYTES, NARROW = 0, 1, 2, 5
GRAPH, INITIALIZER = 7, 5
"""Of a `ModelProto`, of a `GraphProto`."""
NAME, RAW, ENTRY, LOCATION = 8, 9, 13, 14
"""Of a `TensorProto`: `name`, `raw_data`, `external_data`, `data_location`."""
LEAST = 4096
"""Bytes of a weight below which it stays where it is: shape inference reads small constants."""


class WireError(ValueError):
    """Bytes that are not fields."""


def lean(buffer: Buffer) -> tuple[bytes, frozenset[str]]:
    """The model's bytes without its large weights, and the names of these, each with an offset into the file, a length, no location.

    Raises `WireError` for bytes that are no message.
    """
    names: list[str] = []
    out = []
    for number, kind, at, begin, end in _fields(buffer, 0, len(buffer)):
        if number == GRAPH and kind == BYTES:
            out.append(_message(GRAPH, _graph(buffer, begin, end, names)))
        else:
            out.append(buffer[at:end])
    return b"".join(out), frozenset(names)


def _graph(buffer: Buffer, begin: int, end: int, names: list[str]) -> bytes:
    out = []
    for number, kind, at, first, last in _fields(buffer, begin, end):
        if number == INITIALIZER and kind == BYTES and last - first >= LEAST:
            out.append(_message(INITIALIZER, _tensor(buffer, first, last, names)))
        else:
            out.append(buffer[at:last])
    return b"".join(out)


def _tensor(buffer: Buffer, begin: int, end: int, names: list[str]) -> bytes:
    """A tensor without its `raw_data`; as it is, if that is small or elsewhere already."""
    fields = list(_fields(buffer, begin, end))
    raw = next((field for field in reversed(fields) if field[0] == RAW and field[1] == BYTES), None)
    name = next((field for field in reversed(fields) if field[0] == NAME and field[1] == BYTES), None)
    if raw is None or name is None or raw[4] - raw[3] < LEAST or any(field[0] in {ENTRY, LOCATION} for field in fields):
        return buffer[begin:end]
    try:
        names.append(buffer[name[3] : name[4]].decode())
    except UnicodeDecodeError as error:
        raise WireError("a name that is not UTF-8") from error
    rest = b"".join(buffer[at:last] for number, _, at, _, last in fields if number != RAW)
    where = b"".join(
        _message(ENTRY, _message(1, key) + _message(2, str(value).encode()))
        for key, value in ((b"offset", raw[3]), (b"length", raw[4] - raw[3]))
    )
    return rest + where + _varint(LOCATION << 3 | VARINT) + _varint(1)


def _fields(buffer: Buffer, at: int, end: int) -> Iterator[Field]:
    """The fields between two offsets."""
    while at < end:
        tag, begin = _read(buffer, at, end)
        kind = tag & 7
        if kind == VARINT:
            _, after = _read(buffer, begin, end)
        elif kind == BYTES:
            size, begin = _read(buffer, begin, end)
            after = begin + size
        elif kind in {WIDE, NARROW}:
            after = begin + (8 if kind == WIDE else 4)
        else:
            raise WireError(f"a field of kind {kind} at byte {at}")
        if after > end or not tag >> 3:
            raise WireError(f"a field at byte {at} that ends beyond byte {end}")
        yield tag >> 3, kind, at, begin, after
        at = after


def _read(buffer: Buffer, at: int, end: int) -> tuple[int, int]:
    """An integer of seven bits a byte, least first, and where it ends."""
    value = 0
    for place in range(10):
        if at + place >= end:
            raise WireError(f"cut off at byte {at}")
        byte = buffer[at + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise WireError(f"an integer of over ten bytes at byte {at}")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _message(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | BYTES) + _varint(len(value)) + value
