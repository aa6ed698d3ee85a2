"""Writing a file so that it is there whole or not at all. **Atomic**: the new file takes the old one's place when it is complete."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from llmtrace.errors import TraceFileError


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A new file, open for writing, that replaces `path` when the block ends without an exception; a link is followed.

    Whatever goes wrong, an older file stays as it was and no temporary file is left. Raises `TraceFileError` for a missing directory,
    a destination that is no regular file or may not be written, and a full disk.
    """
    target = _target(Path(path))
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                temporary.chmod(target.stat().st_mode & 0o7777)
            temporary.replace(target)
        except OSError as error:
            raise TraceFileError(
                f"{path} could not be written: {error.strerror or error}. Nothing was changed."
            ) from error
    finally:
        temporary.unlink(missing_ok=True)
    _sync(target.parent)


def _target(named: Path) -> Path:
    """The file that is meant, if it can be told before anything is written that it may be."""
    try:
        target = Path(os.path.realpath(named))
        _check(named, target)
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero byte
        raise TraceFileError(
            f"{str(named)!r:.200} cannot be written: {getattr(error, 'strerror', None) or error}."
        ) from error
    return target


def _check(named: Path, target: Path) -> None:
    if not target.parent.is_dir():
        raise TraceFileError(
            f"{named} cannot be written: there is no directory {target.parent}. Make it, or name another."
        )
    if target.exists() and not target.is_file():
        kind = "a directory" if target.is_dir() else "not a regular file"
        raise TraceFileError(f"{named} cannot be written: it is {kind}. Name a file.")
    if target.exists() and not os.access(target, os.W_OK):
        raise TraceFileError(f"{named} cannot be written: it is read-only. Name another file, or allow writing.")


def _sync(directory: Path) -> None:
    """Make the new name last through a power failure, where the system lets one say so."""
    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
