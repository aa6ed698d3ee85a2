"""Several prompts, from the command line or from a file, with where each stands."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import click
from attrs import frozen

from llmtrace.cli.words import one_line

BEGINS = ("[", "{")
"""A line that begins so is JSON."""


@frozen
class Asked:
    """One prompt."""

    prompt: str | list[int]
    """A text, or token ids."""
    where: str
    """For messages: the option, or the file and its line."""


def asked_for(texts: Sequence[str], ids: Sequence[Sequence[int]], file: str | None) -> list[Asked]:
    """What was asked for, in any of its forms. Raises a usage error that names a line of the file."""
    given = [*(Asked(text, f"--prompt {one_line(text)[:40]!r}") for text in texts)]
    given += [Asked(list(each), "--tokens") for each in ids]
    return given if file is None else [*given, *read(file)]


def read(file: str) -> list[Asked]:
    """A file of prompts, one a line: a text, or JSON. Raises a usage error that names the line."""
    try:
        with click.open_file(file, encoding="utf-8") as lines:
            found = list(_read(lines, "standard input" if file == "-" else file))
    except UnicodeDecodeError as error:
        raise click.UsageError(f"The prompts in {file!r} are not valid UTF-8.") from error
    if not found:
        raise click.UsageError(f"There is no prompt in {file!r}.")
    return found


def _read(lines: Iterator[str], name: str) -> Iterator[Asked]:
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\r\n")
        text = text.removeprefix("\ufeff") if number == 1 else text  # some editors put a mark in front
        if text.strip():
            where = f"{name}:{number}"
            yield Asked(_prompt(text, where), where)


def _prompt(text: str, where: str) -> str | list[int]:
    begins = text.lstrip()
    if begins[:1] not in (*BEGINS, '"') and begins.strip() != "null":
        return text
    try:
        value: Any = json.loads(text)
    except ValueError as error:
        if begins[:1] == '"':  # a text may begin with a quotation
            return text
        raise click.UsageError(f"{where}: {text[:40]!r} is no valid JSON ({error}): {_quoted(text)}") from error
    if isinstance(value, str) or (isinstance(value, list) and value and all(type(each) is int for each in value)):
        return value
    what = "is an empty list" if value == [] else "is neither a text nor a list of token ids"
    raise click.UsageError(f"{where}: {text[:40]!r} {what}: {_quoted(text)}")


def _quoted(text: str) -> str:
    shown = json.dumps(text, ensure_ascii=False) if len(text) <= 40 else '"…"'
    return f"give token ids as [5, 17, 3], and a text that begins so in quotes, as {shown}."
