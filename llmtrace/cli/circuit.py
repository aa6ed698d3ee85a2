"""`llmtrace circuit`: which heads do what, and on what evidence. **Subcommand**: a question about circuits, in a file of its own."""

from __future__ import annotations

import click

from llmtrace.cli.lazy import Lazy

SUBCOMMANDS = {"motifs": "Which heads fulfil a known dependency pattern, such as induction."}
"""Subcommand to its one line of help."""


class Circuit(Lazy):
    """The questions."""

    rows = SUBCOMMANDS
    prefix = "circuit_"


@click.group(cls=Circuit, invoke_without_command=True)
@click.pass_context
def circuit(ctx: click.Context) -> None:
    """Say which heads of a model do what, and on what evidence."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
