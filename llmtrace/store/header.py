"""The outside of a saved trace: lengths, JSON, offsets. Everything here is checked against the file before it is believed."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

from attrs import frozen

from llmtrace.errors import TraceFileError
from llmtrace.store.manifest import DTYPES, LONGEST_HEADER

DEEPEST = 32
"""How many brackets may be open at once in a header or manifest."""
WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "U8": 1}
TYPES = {stored: name for name, stored in DTYPES.items()}
TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\Z)|[\[\]{}]', re.DOTALL)
"""A text, closed or not, or a bracket."""


class UnreadableError(ValueError):
    """What is wrong with a file; `load` turns it into a `TraceFileError` that names the file."""


@frozen
class Place:
    """Where one tensor lies, and what it is."""

    dtype: str
    """Our name of the element type."""
    shape: tuple[int, ...]
    """Lengths of its axes."""
    start: int
    """First byte, counted from the start of the file."""
    stop: int
    """The byte after its last."""


def read_header(path: Path) -> tuple[dict[str, str], dict[str, Place]]:
    """The metadata and the tensors of a file. Raises `TraceFileError` where it cannot be read, `UnreadableError` where it is damaged."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise TraceFileError(f"{path} is not a file: name a saved trace.")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if status.st_size < 8 or length > min(LONGEST_HEADER, status.st_size - 8):
                raise UnreadableError("it is empty" if not status.st_size else "it is truncated or not a trace")
            text = file.read(length)
    except FileNotFoundError:
        raise TraceFileError(f"There is no file {path}.") from None
    except (OSError, ValueError) as error:
        if isinstance(error, UnreadableError):
            raise
        raise TraceFileError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if not text.startswith(b"{"):
        raise UnreadableError("it is not a trace")
    header = parse(text, "the header")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UnreadableError("its metadata are not texts")
    return metadata, _places(header, 8 + length, status.st_size)


def parse(text: bytes | str, what: str) -> dict[str, Any]:
    """A JSON object: strict, no key twice, not deeper than `DEEPEST`."""
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
    """Every tensor's place: of a known type, aligned, as long as its shape says, one after the other up to the file's last byte."""
    places = {name: _place(name, row, data) for name, row in tensors.items()}
    end = data
    for name, place in sorted(places.items(), key=lambda item: (item[1].start, item[1].stop)):
        if place.start != end:
            raise UnreadableError(
                f"{name} {'overlaps what stands before it' if place.start < end else 'leaves a gap before it'}"
            )
        end = place.stop
    if end != size:
        raise UnreadableError(
            f"it should have {end} bytes and has {size}: it is {'truncated' if size < end else 'followed by something'}"
        )
    return places


def _place(name: str, row: Any, data: int) -> Place:
    if not isinstance(row, dict) or set(row) != {"dtype", "shape", "data_offsets"}:
        raise UnreadableError(f"its header describes {name!r:.80} badly")
    dtype, shape, offsets = row["dtype"], row["shape"], row["data_offsets"]
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        raise UnreadableError(f"{name} is of the type {dtype!r:.40}; a signal may be {', '.join(WIDTHS)}")
    if not (_naturals(shape) and _naturals(offsets) and len(offsets) == 2):
        raise UnreadableError(f"its header describes {name!r:.80} badly")
    count = 1
    for length in shape:
        count *= length
    start, stop = offsets
    if stop - start != count * WIDTHS[dtype]:
        raise UnreadableError(f"{name} has {stop - start} bytes for {dtype} of shape {shape}")
    if (data + start) % WIDTHS[dtype]:
        raise UnreadableError(f"{name} does not start at a multiple of its element's {WIDTHS[dtype]} bytes")
    return Place(TYPES[dtype], tuple(shape), data + start, data + stop)


def _naturals(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= 8
        and all(type(value) is int and 0 <= value < 2**62 for value in values)
    )
