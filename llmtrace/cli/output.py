"""How commands print. **Answer**: the one JSON document, or text for people, on standard output; **message**: anything else, on
standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from llmtrace.cli.options import Out
from llmtrace.cli.words import one_line, visible
from llmtrace.words import counted

if TYPE_CHECKING:
    from rich.console import Console

    from llmtrace.trace import Token


def say(out: Out, message: str) -> None:
    """A message, unless `--quiet`."""
    if not out.quiet:
        click.echo(one_line(message), err=True)


def answer(out: Out, document: Callable[[], dict[str, Any]], show: Callable[[], None]) -> None:
    """Print the document with `--json`, else show the text."""
    if not out.json:
        show()
        return
    indent = 2 if sys.stdout.isatty() else None
    text = json.dumps(document(), allow_nan=False, ensure_ascii=False, indent=indent)
    click.echo(text.encode("utf-8", "replace"))


def line(text: str = "") -> None:
    """One line for people."""
    click.echo(visible(text))


def prompt_line(tokens: Sequence[Token]) -> None:
    """How many tokens a prompt has, and which."""
    from llmtrace.view.visible import named

    line(f"{counted(len(tokens), 'token')}: " + " ".join(named(token.text, token.id) for token in tokens))


def console() -> Console:
    """Where tables and shades go: as wide as the terminal, elsewhere as wide as they need; colours as the terminal and `NO_COLOR` say."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 100_000)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
    """A table for people: columns named in `right` are flush right."""
    from llmtrace.view import tables

    console().print(tables.table(headings, [[visible(cell) for cell in row] for row in rows], right))


def scientific(number: float) -> str:
    """An error for people: `1.2e-07`, `0`, `inf`."""
    return "0" if number == 0 else f"{number:.1e}"
