"""The tokenizer of an ONNX model: the `tokenizer.json` that its exporter put beside it, or the one that the user names."""

from __future__ import annotations

from pathlib import Path

from llmtrace.errors import OptionError
from llmtrace.tokenizer import open_tokenizer as open_beside
from llmtrace.tokenizer.hf import open_hf
from llmtrace.tokens import Tokenizer

FILE = "tokenizer.json"


def open_tokenizer(path: Path, named: str | None = None) -> tuple[Tokenizer | None, str]:
    """The tokenizer of an `.onnx` file, or None and a note that says why there is none.

    It is looked for beside the file, and beside the folder `onnx` that the file is in. Raises `ModelOpenError` for a file that is no
    tokenizer, `OptionError` for an option that names none.
    """
    if named is not None:
        return _named(Path(named).expanduser()), ""
    folders = [path.parent, *([path.parent.parent] if path.parent.name == "onnx" else [])]
    folder = next((folder for folder in folders if (folder / FILE).is_file()), path.parent)
    found, note = open_beside(folder)
    return found, note if found is not None else f"{note} Name one with the option tokenizer."


def _named(place: Path) -> Tokenizer:
    """The tokenizer that the option names: a file, or a directory that holds one."""
    file = place / FILE if place.is_dir() else place
    if not file.is_file():
        raise OptionError(f"The option tokenizer names {place}, which is no {FILE}, nor a directory that holds one.")
    if file.name == FILE:
        found, note = open_beside(file.parent)
        if found is None:
            raise OptionError(f"The option tokenizer names {place}: {note}")
        return found
    return open_hf(file)
