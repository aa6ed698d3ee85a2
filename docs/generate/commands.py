"""The page of the command line, from its own help."""

from __future__ import annotations

import click

from llmtrace.cli.app import app
from table import NOTICE

INTRO = """# Command line

Every command takes `--json`: one JSON document on standard output, described by a JSON Schema in `docs/schemas`. Messages and
progress go to standard error. The exit status is 0 (done), 1 (done, and the answer is bad news: a check failed, the equations are
violated) or 2 (could not: bad input or usage, said in one line).

A model is a directory of a transformers checkpoint, a GGUF file, or what another installed backend opens; a prefix may name the
backend (`torch:model.gguf`). A prompt is a text or, with `--tokens 5,17,3`, a list of token ids.

"""


def page() -> str:
    """The whole page."""
    root = click.Context(app, info_name="llmtrace", terminal_width=100, max_content_width=100)
    text = NOTICE + INTRO + _help("llmtrace", app, root)
    return (text + _below(app, root, "llmtrace")).rstrip() + "\n"


def _below(group: click.Group, context: click.Context, path: str) -> str:
    """The commands of a group, each followed by its own."""
    text = ""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None:
            raise LookupError(f"The command {name} is listed but not there.")
        inner = click.Context(command, context, name)
        text += f"## `{path} {name}`\n\n" + _help(name, command, inner)
        if isinstance(command, click.Group):
            text += _below(command, inner, f"{path} {name}")
    return text


def _help(name: str, command: click.Command, context: click.Context) -> str:
    context.terminal_width = context.max_content_width = 100
    return f"```text\n{command.get_help(context).rstrip()}\n```\n\n"
