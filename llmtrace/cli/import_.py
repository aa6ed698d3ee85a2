"""`llmtrace import`: a trace of what another tool recorded, held against the equations of the model that it is of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from llmtrace.cli.exits import BAD_NEWS, DONE
from llmtrace.cli.options import Command, Out, out_options
from llmtrace.cli.parameters import Indices

if TYPE_CHECKING:
    from llmtrace.importing.record import Imported


@click.command("import", cls=Command)
@click.argument("dump", metavar="DUMP", type=click.Path())
@click.argument("target", metavar="OUT.trace", type=click.Path(dir_okay=False))
@click.option(
    "--model",
    "origin",
    metavar="MODEL",
    required=True,
    type=click.Path(),
    help="Whose arrays they are: a model, or a saved trace of it.",
)
@click.option("--prompt", "text", metavar="TEXT", help="What was recorded, as a text that the model's tokenizer reads.")
@click.option(
    "--tokens", "ids", type=Indices(), help="The same as token ids: 5,17,3; default: what the dump calls `tokens`."
)
@click.option("--map", "names", metavar="FILE", type=click.Path(), help="What the dump's names mean, in TOML.")
@click.option(
    "--sequence", metavar="N", type=int, help="Of a batch of several sequences, the one to take; the first is 0."
)
@click.option(
    "--leave-out", is_flag=True, help="Leave out arrays whose names mean nothing here, instead of refusing them."
)
@click.option("--all", "every", is_flag=True, help="List every site, not the worst of each kind.")
@out_options()
def import_(
    dump: str,
    target: str,
    origin: str,
    text: str | None,
    ids: tuple[int, ...] | None,
    names: str | None,
    sequence: int | None,
    leave_out: bool,
    every: bool,
    out: Out,
) -> int:
    """Make a trace of DUMP, what another tool recorded of MODEL, and write it to OUT.trace.

    DUMP is a directory of .npy files, an .npz file or a .safetensors file. Its names are our sites, TransformerLens's hooks, or what the
    map says. Each signal is then compared with its equation, as by verify; those that are not what the model computes, as after
    TransformerLens's default processing, are named with the likely reason. Exits 1 if there are any.
    """
    from llmtrace.cli.destination import check_destination
    from llmtrace.cli.opening import is_saved
    from llmtrace.cli.output import answer, say
    from llmtrace.importing.run import import_dump

    if text is not None and ids is not None:
        raise click.UsageError("Give one prompt: --prompt or --tokens.")
    check_destination(target, dump, origin, names)
    say(out, f"reading {dump} and opening {origin} …")
    found = import_dump(
        dump, origin, ids if text is None else text, names=names, sequence=sequence, leave_out=leave_out
    )
    found.trace.save(target)
    hint = "" if is_saved(target) else "; verify and view take it once its name ends in .trace"
    say(out, f"wrote {target}{hint}")
    answer(out, lambda: found.to_json(target), lambda: show(found, every))
    return BAD_NEWS if found.violated else DONE


def show(found: Imported, every: bool) -> None:
    """What was imported, what is to be said of it, and the verdicts; for people."""
    from llmtrace.cli.output import line
    from llmtrace.cli.verdicts import show as show_verdicts
    from llmtrace.words import counted

    line(
        f"imported {counted(len(found.trace), 'signal')} of {counted(len(found.trace.tokens), 'token')} from {found.dump}"
    )
    for note in found.trace.model.notes[1:]:
        line(note)
    line()
    if found.verdicts is None:
        line(found.unchecked)
    else:
        show_verdicts(found.verdicts, every)
