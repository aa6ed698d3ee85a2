"""The chat template of a checkpoint directory: `chat_template.jinja`, else the entry `chat_template` of `tokenizer_config.json`, which also
says what the special tokens are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmtrace.chat import ChatTemplate
from llmtrace.errors import ModelOpenError

CONFIG = "tokenizer_config.json"
OWN = "chat_template.jinja"
DEFAULT = "default"
"""The name of the template that is meant, where a file has several."""
FIX = "Fetch it again."


def chat_template(directory: Path) -> ChatTemplate | None:
    """The directory's chat template, or None. Raises `ModelOpenError` for files that cannot be read."""
    config = _config(directory / CONFIG)
    marks = {name: mark for name, value in config.items() if name.endswith("_token") and (mark := _mark(value))}
    own = directory / OWN
    if own.is_file():
        try:
            return ChatTemplate(own.read_text(encoding="utf-8"), str(own), marks)
        except (OSError, ValueError) as error:
            raise ModelOpenError(f"{own} cannot be read: {error}. {FIX}") from error
    text = _default(config.get("chat_template"))
    return ChatTemplate(text, str(directory / CONFIG), marks) if text else None


def _config(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelOpenError(f"{path} cannot be read as JSON: {error}. {FIX}") from error
    if not isinstance(data, dict):
        raise ModelOpenError(f"{path} is not a tokenizer's config: it is no object. {FIX}")
    return data


def _default(found: object) -> str | None:
    """The template, or the default one of a list of named ones."""
    if isinstance(found, list):
        named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        found = named.get(DEFAULT)
    return found if isinstance(found, str) and found else None


def _mark(value: object) -> str | None:
    """A special token, which is a text or an object with a `content`."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None
