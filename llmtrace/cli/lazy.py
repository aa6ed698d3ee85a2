"""A group of commands that are listed by a table. **Lazy**: a command's module is imported when the command is called or completed, never for
`--help`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from keyword import iskeyword
from typing import ClassVar

import click


class Lazy(click.Group):
    """A group whose commands are imported on demand."""

    rows: ClassVar[Mapping[str, str]]
    """Command to its one line of help, in the order of a first session, not of the alphabet."""
    prefix: ClassVar[str] = ""
    """What a module's name begins with; the rest of it is its function's and the command's, with `_` for `-`, and at the end of a keyword."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(self.rows)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in self.rows:
            return None
        function = cmd_name.replace("-", "_") + "_" * iskeyword(cmd_name)
        command: click.Command = getattr(import_module(f"llmtrace.cli.{self.prefix}{function}"), function)
        command.short_help = self.rows[cmd_name]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.rows.items()))
