"""Checks a destination before the work that it is for, so that a mistyped directory costs nothing."""

from __future__ import annotations

import os
from pathlib import Path

import click


def check_destination(name: str) -> None:
    """Refuse a file that could not be written: its directory is missing, or not ours to write in."""
    if not name:
        raise click.UsageError("The name of the file to write is empty.")
    parent = Path(name).absolute().parent
    if Path(name).is_dir():
        raise click.UsageError(f"{name!r} is a directory: name a file in it.")
    if not parent.is_dir():
        raise click.UsageError(f"There is no directory {str(parent)!r} to write {Path(name).name!r} in: make it first.")
    if not os.access(parent, os.W_OK):
        raise click.UsageError(f"The directory {str(parent)!r} cannot be written in: name a file elsewhere.")
