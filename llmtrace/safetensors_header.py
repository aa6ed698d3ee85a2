"""The header of a safetensors file, read strictly: saved traces and checkpoints come in through here.

A file is an 8-byte little-endian length, a JSON header of that length, and the data. The header gives each tensor's type, shape and
**place**: its bytes in the data, which the tensors fill without overlap or hole, to the file's last byte. Nothing of this is believed
before it is checked against the file. https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from attrs import frozen

LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""
DEEPEST = 32
"""How many brackets may be open at once."""
MOST_AXES = 8
WIDTHS = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Bytes of an element, by the format's name of its type. A type that is not among these has a place and no known length."""
TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\Z)|[\[\]{}]', re.DOTALL)
"""A text, closed or not, or a bracket."""


class UnreadableError(ValueError):
    """What is wrong with a file, to follow its name in a message: whoever opened the file turns this into an error of its own."""


@frozen
class Place:
    """Where one tensor lies, and what it is."""

    dtype: str
    """The format's name of the element type: `F32`."""
    shape: tuple[int, ...]
    """Lengths of its axes."""
    start: int
    """First byte, counted from the start of the file."""
    stop: int
    """The byte after its last."""


def read_header(path: Path) -> tuple[dict[str, str], dict[str, Place]]:
    """The metadata and the tensors of a regular file. Raises `UnreadableError` where it is damaged, `OSError` where it cannot be read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(LONGEST_HEADER, size - 8):
            raise UnreadableError(
                "it is empty" if not size else f"it is truncated or not a safetensors file ({size} bytes)"
            )
        text = file.read(length)
    if not text.startswith(b"{"):
        raise UnreadableError("it is not a safetensors file")
    header = parse(text, "the header")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UnreadableError("its metadata are not texts")
    return metadata, _places(header, 8 + length, size)


def parse(text: bytes | str, what: str) -> dict[str, Any]:
    """A JSON object: strict, no key twice, not deeper than `DEEPEST`. Raises `UnreadableError`, in which `what` is the text's name."""
    try:
        plain = text.decode("utf-8") if isinstance(text, bytes) else text
        _check_depth(plain, what)
        value = json.loads(plain, object_pairs_hook=_once, parse_constant=_no_constant)
    except UnreadableError:
        raise
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{what} is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise UnreadableError(f"{what} is not a JSON object")
    return value


def _check_depth(text: str, what: str) -> None:
    """Count brackets outside of texts: the parser itself would go as deep as the file says."""
    depth = 0
    for found in TOKENS.finditer(text):
        first = found[0][0]
        if first != '"':
            depth += 1 if first in "[{" else -1
            if depth > DEEPEST:
                raise UnreadableError(f"{what} is nested deeper than {DEEPEST}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise UnreadableError(f"it says {name!r:.80} twice")
        found[name] = value
    return found


def _no_constant(name: str) -> None:
    raise UnreadableError(f"it holds {name}, which JSON does not have")


def _places(tensors: dict[str, Any], data: int, size: int) -> dict[str, Place]:
    """Every tensor's place: as long as its shape says, one after the other up to the file's last byte."""
    places = {name: _place(name, row, data) for name, row in tensors.items()}
    end = data
    for name, place in sorted(places.items(), key=lambda item: (item[1].start, item[1].stop)):
        if place.start != end:
            raise UnreadableError(
                f"{name!r:.200} {'overlaps what stands before it' if place.start < end else 'leaves a gap before it'}"
            )
        end = place.stop
    if end != size:
        raise UnreadableError(
            f"it should have {end} bytes and has {size}: it is {'truncated' if size < end else 'followed by something'}"
        )
    return places


def _place(name: str, row: Any, data: int) -> Place:
    if not isinstance(row, dict) or set(row) != {"dtype", "shape", "data_offsets"}:
        raise UnreadableError(f"its header describes {name!r:.200} badly")
    dtype, shape, offsets = row["dtype"], row["shape"], row["data_offsets"]
    if not (isinstance(dtype, str) and _naturals(shape) and _naturals(offsets) and len(offsets) == 2):
        raise UnreadableError(f"its header describes {name!r:.200} badly")
    start, stop = offsets
    if stop < start or (dtype in WIDTHS and stop - start != math.prod(shape) * WIDTHS[dtype]):
        raise UnreadableError(f"{name!r:.200} has {stop - start} bytes for {dtype:.40} of shape {shape}")
    return Place(dtype, tuple(shape), data + start, data + stop)


def _naturals(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= MOST_AXES
        and all(type(value) is int and 0 <= value < 2**62 for value in values)
    )
