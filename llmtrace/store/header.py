"""The outside of a saved trace: a strict safetensors header, of regular files and of the types that a signal may have."""

from __future__ import annotations

import stat
from pathlib import Path

from attrs import evolve

from llmtrace.errors import TraceFileError
from llmtrace.safetensors_header import DEEPEST, WIDTHS, Place, UnreadableError, parse
from llmtrace.safetensors_header import read_header as read_any
from llmtrace.store.manifest import DTYPES

__all__ = ["DEEPEST", "Place", "UnreadableError", "parse", "read_header"]

TYPES = {stored: name for name, stored in DTYPES.items()}


def read_header(path: Path) -> tuple[dict[str, str], dict[str, Place]]:
    """The metadata and the tensors of a file, with our names of their types.

    Raises `TraceFileError` where the file cannot be read, `UnreadableError` where it is damaged or cannot be mapped as it lies.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise TraceFileError(f"{path} is not a file: name a saved trace.")
        metadata, places = read_any(path)
    except FileNotFoundError:
        raise TraceFileError(f"There is no file {path}.") from None
    except UnreadableError as error:
        raise UnreadableError(str(error).replace("not a safetensors file", "not a trace")) from error
    except (OSError, ValueError) as error:
        raise TraceFileError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    return metadata, {name: _ours(name, place) for name, place in places.items()}


def _ours(name: str, place: Place) -> Place:
    if place.dtype not in TYPES:
        raise UnreadableError(f"{name!r:.200} is of the type {place.dtype!r:.40}; a signal may be {', '.join(TYPES)}")
    if place.start % WIDTHS[place.dtype]:
        raise UnreadableError(
            f"{name!r:.200} does not start at a multiple of its element's {WIDTHS[place.dtype]} bytes"
        )
    return evolve(place, dtype=TYPES[place.dtype])
