"""The core's own readers of `tokenizer.json`, for backends whose runtime brings no tokenizer.

A file that only splits at blanks and looks words up is read here (`words`); every other kind through the optional library
`tokenizers` (`hf`), which is imported when such a file is opened and not before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attrs import evolve

from llmtrace.errors import ModelOpenError
from llmtrace.tokenizer import words
from llmtrace.tokenizer.template import chat_template
from llmtrace.tokens import Tokenizer

__all__ = ["open_tokenizer"]

FIX = "Fetch it again, or remove it to prompt by token ids."


def open_tokenizer(directory: str | Path) -> tuple[Tokenizer | None, str]:
    """The tokenizer of a checkpoint directory, or None and a note that says why there is none.

    Raises `ModelOpenError` for a `tokenizer.json` that is not one. It brings the directory's chat template.
    """
    path = Path(directory) / "tokenizer.json"
    if not path.is_file():
        others = [name for name in ("tokenizer.model", "vocab.json", "vocab.txt") if (path.parent / name).is_file()]
        found = f" ({others[0]} alone is not read)" if others else ""
        return None, f"There is no tokenizer.json{found}: prompts are token ids."
    data = _read(path)
    chat = chat_template(path.parent)
    if words.reads(data):
        return evolve(words.WordTokenizer.from_json(data, path), chat_template=chat), ""
    try:
        from llmtrace.tokenizer import hf
    except ImportError:
        return None, f"{path.name} needs the library tokenizers (pip install tokenizers): prompts are token ids."
    return evolve(hf.open_hf(path), chat_template=chat), ""


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelOpenError(f"{path} cannot be read as JSON: {error}. {FIX}") from error
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise ModelOpenError(f"{path} is not a tokenizer: it has no object 'model'. {FIX}")
    return data
