"""The prompt and the target, from words on the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmtrace.cli.options import Asked, Out
from llmtrace.cli.output import say

if TYPE_CHECKING:
    from llmtrace.model import Model


def read_prompt(asked: Asked) -> str | list[int]:
    """The prompt that was asked for. Raises a usage error unless there is exactly one."""
    given = [each for each in (asked.prompt, asked.tokens, asked.prompt_file) if each is not None]
    if len(given) > 1:
        raise click.UsageError("Give one prompt: PROMPT, --tokens or --prompt-file.")
    if not given:
        raise click.UsageError("A prompt is missing: give PROMPT, --tokens 5,17,3 or --prompt-file FILE.")
    if asked.system is not None and not asked.chat:
        raise click.UsageError("--system goes with --chat.")
    if asked.tokens is not None:
        if asked.chat:
            raise click.UsageError("--chat writes a text out, and --tokens are ids already: give one of them.")
        return list(asked.tokens)
    text = _read(asked.prompt_file) if asked.prompt_file is not None else asked.prompt or ""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise click.UsageError("The prompt is not valid UTF-8.") from error
    return text


def written_out(model: Model, prompt: str | list[int], asked: Asked, out: Out) -> str | list[int]:
    """The prompt, by the model's chat template where that was asked for. Raises `ChatTemplateError`, `CapabilityError`."""
    if not asked.chat or not isinstance(prompt, str):
        return prompt
    from llmtrace.chat import chat

    found = chat(model.tokenizer, prompt, system=asked.system)
    if found.dated:
        say(out, "note: the chat template writes today's date into the prompt; SOURCE_DATE_EPOCH=SECONDS sets the day")
    return list(found.tokens)


def _read(name: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"The prompt in {name!r} is not valid UTF-8 (byte {error.start}).") from error


def read_token(model: Model, name: str, text: str | None, id: int | None) -> str | int | None:
    """A target or foil: text, or an id. A number is an id where the model has no tokenizer that could read it as text."""
    if text is not None and id is not None:
        raise click.UsageError(f"Give --{name} or --{name}-id, not both.")
    if text is not None and model.tokenizer is None and text.isascii() and text.isdigit():
        return int(text)
    return id if text is None else text
