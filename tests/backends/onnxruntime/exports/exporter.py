"""What an exporter is, and how it fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import frozen


class ExportError(Exception):
    """An exporter refused a model, or broke; the last line of what it said."""


class NotInstalledError(Exception):
    """What an exporter needs is not here; which, and how to get it."""


@frozen
class Exporter:
    """How to make `model.onnx` of a checkpoint."""

    name: str
    make: Callable[[Path, Path], None]
    """Of a checkpoint's directory, into an empty directory."""
    needs: Mapping[str, str] = {}
    """Modules that must be there, and the requirement that brings each."""


def last_line(text: str) -> str:
    """What a traceback ends in: the error, without its path."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if "Error" in line.split(":")[0] or "Exception" in line.split(":")[0]]
    return ((said or lines or ["nothing was said"])[-1])[:300]
