"""The group `llmtrace`. **Lazy**: a command's module is imported when the command is called or completed, never for `--help`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword
from typing import Any, NoReturn

import click

import llmtrace
from llmtrace.cli.exits import Ending, guarded, quietly

COMMANDS = {
    "demo": "Trace the built-in model whose answers are known; needs no runtime.",
    "backends": "The backends, methods, viewers and motifs that are installed.",
    "info": "What a model is, and which signals it gives.",
    "trace": "Run a model over a prompt and record its signals.",
    "influence": "How strongly a prediction depends on each source token.",
    "lens": "What each point of the residual stream would predict.",
    "circuit": "Which heads do what, and on what evidence?",
    "compare": "Where do two runs of one model stop agreeing, and why?",
    "import": "Make a trace of what another tool recorded, and check it.",
    "verify": "Check a model or a saved trace against its own equations.",
    "view": "Write the page of a trace, to look at in a browser.",
    "check-backend": "Hold an installed backend to the conformance kit.",
    "new-backend": "Write the skeleton of a plugin for a runtime of your own.",
}
"""Command to its one line of help; the module and its function have the same name, with `_` for `-`, and at the end of a Python keyword."""


class Group(click.Group):
    """A group whose commands are imported on demand, and which ends as `exits` says."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of a first session, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        place = cmd_name.replace("-", "_") + "_" * iskeyword(cmd_name)
        command: click.Command = getattr(import_module(f"llmtrace.cli.{place}"), place)
        command.short_help = COMMANDS[cmd_name]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> NoReturn:
        """Run the command; raises `Ending` with its exit code, past click's own handlers, which would answer a closed pipe with 1."""
        raise Ending(guarded(lambda: super(Group, self).invoke(ctx)))

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the group's own options; `--help` prints here, and its reader may go away too."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except BrokenPipeError:
            raise Ending(quietly()) from None

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,  # click's own signature
    ) -> NoReturn:
        """Parse, run, exit."""
        try:
            code = guarded(
                lambda: super(Group, self).main(
                    args, prog_name, complete_var, False, windows_expand_args=windows_expand_args, **extra
                )
            )
        except Ending as ending:
            code = ending.code
        raise SystemExit(code)


@click.group(
    "llmtrace",
    cls=Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 done; 1 done, and the answer is bad news; 2 could not. Every command takes --json.",
)
@click.version_option(llmtrace.__version__, prog_name="llmtrace")
@click.pass_context
def app(ctx: click.Context) -> None:
    """Look inside transformer language models on the runtime they ship on."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
