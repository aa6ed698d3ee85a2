"""Writes the skeleton of a plugin, as `llmtrace new-backend` does. **Skeleton**: an installable plugin that opens nothing yet, and whose
tests say what to write next. Its files lie in `skeleton/`, with `@words@` in place of names.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from attrs import frozen

import llmtrace
from llmtrace.brought import NAME
from llmtrace.errors import OptionError
from llmtrace.plugins import plugins

SUFFIX = ".txt"
"""Of the templates, so that no tool takes them for code."""


@frozen
class Written:
    """What was written."""

    backend: str
    """Its name."""
    package: str
    """What it imports as."""
    directory: Path
    """Where it lies."""
    files: tuple[str, ...]
    """Relative to the directory, sorted."""


def new_backend(name: str, into: str | Path = ".") -> Written:
    """Write the skeleton of a backend into `into`, as a directory of its own: all of it, or nothing.

    Raises `OptionError` for a name that cannot be or is taken, and where the directory is there or cannot be.
    """
    words = _words(name)
    parent, target = Path(into), Path(into) / words["distribution"]
    if not parent.is_dir():
        raise OptionError(f"There is no directory {str(parent)!r} to write {target.name} in: make it first.")
    if os.path.lexists(target):
        raise OptionError(
            f"{str(target)!r} is there already, and nothing is written over: remove it, or name another place (--into)."
        )
    try:
        place = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=parent))
    except OSError as error:
        raise OptionError(
            f"The directory {str(parent)!r} cannot be written in ({error.strerror}): name another (--into)."
        ) from error
    try:
        half = place / target.name
        half.mkdir()
        written = sorted(_write(half, path, text) for path, text in _templates(words))
        half.rename(target)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return Written(name, words["package"], target, tuple(written))


def _words(name: str) -> dict[str, str]:
    """What stands for what in the templates."""
    if not NAME.fullmatch(name) or not re.fullmatch(r"[a-z0-9]+([-_][a-z0-9]+)*", name):
        raise OptionError(
            f"A backend cannot be called {name!r:.100}: lower-case letters, digits, and single - or _ between them; a letter first."
        )
    distribution = f"llmtrace-{name.replace('_', '-')}"
    taken = {entry.name: entry.distribution for entry in plugins().backends.values()}
    if name in taken or distribution in {"llmtrace-core", *taken.values()}:
        raise OptionError(
            f"The name {name!r} is taken by {taken.get(name, distribution)}, which is installed: choose another."
        )
    parts = re.split("[-_]", name)
    major, minor = llmtrace.__version__.split(".")[:2]
    return {
        "name": name,
        "distribution": distribution,
        "package": distribution.replace("-", "_"),
        "Class": "".join(part.capitalize() for part in parts),
        "Title": " ".join(part.capitalize() for part in parts),
        "schema": str(llmtrace.SCHEMA_VERSION),
        "core": f"llmtrace-core>={major}.{minor},<{major}.{int(minor) + 1}",
    }


def _templates(words: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Path and text of each file, with the names put in."""
    for path, text in _found(files("llmtrace.testing") / "skeleton"):
        filled = re.sub(r"@(\w+)@", lambda match: words[match[1]], text)
        yield path.removesuffix(SUFFIX).replace("package/", f"{words['package']}/"), filled


def _found(place: Traversable, above: str = "") -> Iterator[tuple[str, str]]:
    for each in place.iterdir():
        if each.is_dir():
            yield from _found(each, f"{above}{each.name}/")
        elif each.name.endswith(SUFFIX):
            yield above + each.name, each.read_text(encoding="utf-8")


def _write(place: Path, path: str, text: str) -> str:
    file = place / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8", newline="\n")
    return path
