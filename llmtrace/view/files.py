"""Writing a picture to disk, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from llmtrace.store.atomic import replacing


def write(path: str | Path, content: str | bytes) -> None:
    """Write a file atomically: whatever goes wrong, an older file stays as it was.

    Raises `TraceFileError` for a missing directory, a destination that is no regular file, or a full or read-only disk.
    """
    with replacing(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)
