"""The group `llmtrace`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import click

import llmtrace
from llmtrace.cli.exits import Ending, guarded, quietly
from llmtrace.cli.lazy import Lazy

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
"""Command to its one line of help."""


class Group(Lazy):
    """The commands, which end as `exits` says."""

    rows = COMMANDS

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
