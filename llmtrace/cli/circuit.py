"""`llmtrace circuit`: which heads do what, and on what evidence. **Subcommand**: a question about circuits, in a file of its own."""

from __future__ import annotations

from importlib import import_module

import click

SUBCOMMANDS = {"motifs": "Which heads fulfil a known dependency pattern, such as induction."}
"""Subcommand to its one line of help; its module is `circuit_NAME`."""


class Circuit(click.Group):
    """Imports a subcommand when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the subcommand's module."""
        if cmd_name not in SUBCOMMANDS:
            return None
        command: click.Command = getattr(import_module(f"llmtrace.cli.circuit_{cmd_name}"), cmd_name)
        command.short_help = SUBCOMMANDS[cmd_name]
        return command


@click.group(cls=Circuit)
def circuit() -> None:
    """Say which heads of a model do what, and on what evidence."""
