"""Checks a destination before the work that it is for, so that a mistyped directory costs nothing."""

from __future__ import annotations

import os
from pathlib import Path

import click


def check_destination(name: str, *sources: str | None) -> None:
    """Refuse a file that could not be written: its directory is missing, or it is not ours to write; and one of the `sources`, the files that
    are read for it, each with or without the backend before it.
    """
    if not name:
        raise click.UsageError("The name of the file to write is empty.")
    parent = Path(name).absolute().parent
    if Path(name).is_dir():
        raise click.UsageError(f"{name!r} is a directory: name a file in it.")
    if not parent.is_dir():
        raise click.UsageError(f"There is no directory {str(parent)!r} to write {Path(name).name!r} in: make it first.")
    if not os.access(parent, os.W_OK):
        raise click.UsageError(f"The directory {str(parent)!r} cannot be written in: name a file elsewhere.")
    if not os.path.exists(name):
        return
    if not os.access(name, os.W_OK):
        raise click.UsageError(f"{name!r} is read-only: name another file, or allow writing.")
    for source in filter(None, sources):
        for file in (source, source.partition(":")[2]):
            if os.path.exists(file) and Path(file).samefile(name):
                raise click.UsageError(f"{name!r} is what is read: name another file to write.")
