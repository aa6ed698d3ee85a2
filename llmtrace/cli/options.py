"""What commands have in common on the command line. **Opening**: which model, and how; **asked**: the prompt; **out**: how to answer.

Each is a record that a command receives as one argument, under the name that `RECORDS` gives it; `Command` gathers its fields from
click's parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import click
from attrs import fields, frozen

from llmtrace.cli.parameters import NO_LIMIT, Indices, Size, complete_backend, pairs

F = TypeVar("F", bound=Callable[..., Any])


@frozen
class Opening:
    """Which model, and how it is opened."""

    model: str
    backend: str | None
    preset: Literal["exact", "shipped"]
    options: dict[str, str]
    """The backend's own settings, as written."""
    dtype: str | None
    device: str | None

    @property
    def settings(self) -> dict[str, str]:
        """The backend's options, with the shorthands among them."""
        short = {"dtype": self.dtype, "device": self.device}
        return self.options | {name: value for name, value in short.items() if value is not None}


@frozen
class Asked:
    """The prompt, in whichever of its three forms, and whether it is what a user says in a chat."""

    prompt: str | None
    tokens: tuple[int, ...] | None
    prompt_file: str | None
    chat: bool = False
    system: str | None = None

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return (self.prompt, self.tokens, self.prompt_file, self.system) != (None, None, None, None) or self.chat


@frozen
class Out:
    """How a command answers."""

    json: bool
    quiet: bool


RECORDS: dict[str, type[Any]] = {"opening": Opening, "asked": Asked, "out": Out}


class Command(click.Command):
    """A command that receives the shared options as records."""

    def invoke(self, ctx: click.Context) -> Any:
        """Gather, then run."""
        for name, record in RECORDS.items():
            names = [field.name for field in fields(record)]
            if names[0] in ctx.params:
                ctx.params[name] = record(**{each: ctx.params.pop(each) for each in names})
        return super().invoke(ctx)


def opening_options(preset: str = "shipped") -> Callable[[F], F]:
    """Argument MODEL and the options that say how it is opened."""
    return stacked(
        click.argument("model", metavar="MODEL", type=click.Path()),
        click.option(
            "--backend", metavar="NAME", shell_complete=complete_backend, help="Open the model with this backend."
        ),
        click.option(
            "--preset", type=click.Choice(["exact", "shipped"]), default=preset, show_default=True,
            help="Settings that the equations hold tightest on, or the runtime's own.",
        ),
        click.option(
            "-o", "--option", "options", metavar="NAME=VALUE", multiple=True, callback=pairs,
            help="A setting of the backend; `llmtrace backends` lists them. May be repeated.",
        ),
        click.option("--dtype", metavar="TYPE", help="Short for -o dtype=TYPE."),
        click.option("--device", metavar="NAME", help="Short for -o device=NAME."),
    )  # fmt: skip


def asked_options() -> Callable[[F], F]:
    """Argument PROMPT, and what may stand in its place."""
    return stacked(
        click.argument("prompt", metavar="[PROMPT]", required=False),
        click.option("--tokens", type=Indices(), help="Token ids in place of a prompt: 5,17,3."),
        click.option(
            "--prompt-file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, allow_dash=True),
            help="Read the prompt from a file, or from standard input (-); the newline that ends the last line is not part of it.",
        ),
        click.option("--chat", is_flag=True, help="The prompt is what a user says: write it out by the model's chat template."),
        click.option("--system", metavar="TEXT", help="With --chat, the system's message before it."),
    )  # fmt: skip


def out_options() -> Callable[[F], F]:
    """`--json` and `--quiet`."""
    return stacked(
        click.option("--json", is_flag=True, help="Print one JSON document, whose schema is in docs/schemas/."),
        click.option("-q", "--quiet", is_flag=True, help="No messages on standard error but errors."),
    )


def target_options() -> Callable[[F], F]:
    """`--position`, `--target`, `--target-id`."""
    return stacked(
        click.option(
            "--position",
            type=int,
            default=-1,
            show_default=True,
            help="Whose prediction; -1 is that of the last token.",
        ),
        click.option(
            "--target", metavar="TOKEN", help='The token to look for, exactly (" Paris"); default: the predicted one.'
        ),
        click.option("--target-id", type=int, metavar="ID", help="The same, as a token id."),
    )


def max_bytes_option() -> Callable[[F], F]:
    """`--max-bytes`."""
    return click.option(
        "--max-bytes",
        type=Size(),
        default="2GiB",
        show_default=True,
        callback=lambda ctx, param, value: (
            None if value == NO_LIMIT else value
        ),  # click takes a type's None for no value
        help="Refuse, before the run, to record more than this; or none.",
    )


def stacked(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several click decorators as one, in the order in which `--help` lists them."""

    def decorate(command: F) -> F:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate
