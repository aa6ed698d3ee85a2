"""What is being done, while it takes time: on a terminal one line of standard error that changes and at last goes; elsewhere nothing, since a
file of messages has no use for it.
"""

from __future__ import annotations

import sys
from types import TracebackType

import click

from llmtrace.cli.options import Out
from llmtrace.cli.words import one_line

CLEAR = "\r\x1b[K"
"""Back to the first column, and nothing to the right of it."""


class Progress:
    """Told what is being done; a context manager, at whose end the line is gone."""

    def __init__(self, out: Out) -> None:
        self._shown = sys.stderr.isatty() and not out.quiet

    def __call__(self, doing: str) -> None:
        """Show it in place of what was being done before."""
        if self._shown:
            width = max(20, _width() - 3)
            text = one_line(doing)
            text = text if len(text) <= width else "…" + text[-width + 1 :]  # what stands last says how far it is
            click.echo(f"{CLEAR}{text} …", err=True, nl=False)

    def __enter__(self) -> Progress:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Clear the line."""
        if self._shown:
            click.echo(CLEAR, err=True, nl=False)


def _width() -> int:
    import shutil

    return shutil.get_terminal_size().columns
