"""`llmtrace verify`: check a model, or a saved trace, against its own equations. No other runtime is needed.

**Judged**: a site that the runtime handed out, compared with its equation applied to the runtime's own inputs. Derived sites agree by
construction and are not judged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from llmtrace.cli.exits import BAD_NEWS, DONE
from llmtrace.cli.options import Asked, Command, Opening, Out, asked_options, opening_options, out_options

if TYPE_CHECKING:
    from llmtrace.verifying import Verdicts


@click.command(cls=Command)
@opening_options("exact")
@asked_options()
@click.option("--model", "origin", metavar="MODEL", help="For a saved trace: the model whose weights to check it with.")
@click.option("--all", "every", is_flag=True, help="List every site, not the worst of each kind.")
@out_options()
def verify(opening: Opening, asked: Asked, origin: str | None, every: bool, out: Out) -> int:
    """Check MODEL, on one prompt, or a saved trace, against the equations of its architecture.

    Each signal is compared with its equation applied to the signals before it and to the weights in the file, so the first site that
    is violated is where a fault entered. Exits 1 if any is. A damaged weights file or a wrong tokenizer is not seen: both sides read it.

    Of a saved trace, the model that it came from is opened for its weights, where it is on this machine.
    """
    from llmtrace.cli.opening import is_saved
    from llmtrace.cli.output import answer
    from llmtrace.cli.verdicts import show

    if is_saved(opening.model):
        if asked.given:
            raise click.UsageError("A saved trace has its own prompt: give none.")
        verdicts = _of_trace(opening, origin, out)
    elif origin is not None:
        raise click.UsageError(f"--model goes with a saved trace, and {opening.model!r} is none.")
    else:
        verdicts = _of_model(opening, asked, out)
    answer(out, verdicts.to_json, lambda: show(verdicts, every))
    return DONE if verdicts.verdict == "holds" else BAD_NEWS


def _of_model(opening: Opening, asked: Asked, out: Out) -> Verdicts:
    from llmtrace.cli.asking import read_prompt, written_out
    from llmtrace.cli.opening import open_model
    from llmtrace.verifying import verify_model

    prompt = read_prompt(asked) if asked.given else None
    with open_model(opening, out) as model:
        return verify_model(model, None if prompt is None else written_out(model, prompt, asked, out))


def _of_trace(opening: Opening, source: str | None, out: Out) -> Verdicts:
    from llmtrace.cli.output import say
    from llmtrace.origin import open_origin, own_source
    from llmtrace.trace import load
    from llmtrace.verifying import verify_trace

    trace = load(opening.model)
    for note in trace.model.notes:
        say(out, f"note: {note}")
    if found := source or own_source(trace):
        say(out, f"opening {found} for its weights …")
    with open_origin(trace, source, backend=opening.backend, preset=opening.preset, options=opening.settings) as origin:
        for note in origin.notes:
            say(out, f"note: {note}")
        return verify_trace(origin.trace, (origin.missing,) if origin.missing else (), name=opening.model)
