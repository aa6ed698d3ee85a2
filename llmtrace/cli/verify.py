"""`llmtrace verify`: check a model, or a saved trace, against its own equations. No other runtime is needed.

**Judged**: a site that the runtime handed out, compared with its equation applied to the runtime's own inputs. Derived sites agree by
construction and are not judged.
"""

from __future__ import annotations

import click

from llmtrace.cli.exits import BAD_NEWS, DONE
from llmtrace.cli.options import Asked, Command, Opening, Out, asked_options, opening_options, out_options


@click.command(cls=Command)
@opening_options("exact")
@asked_options()
@click.option("--model", "origin", metavar="MODEL", help="For a saved trace: the model whose weights to check it with.")
@click.option("--all", "every", is_flag=True, help="List every site, not the worst of each kind.")
@out_options()
def verify(opening: Opening, asked: Asked, origin: str | None, every: bool, out: Out) -> int:
    """Check MODEL, on one prompt, or a saved trace, against the equations of its architecture.

    Each signal is compared with its equation applied to the signals before it and to the weights in the file, so the first site that
    is violated is where a fault entered. Exits 1 if any is.
    """
    from llmtrace.cli.judging import of_model, of_trace
    from llmtrace.cli.output import answer
    from llmtrace.cli.saved import is_saved
    from llmtrace.cli.verdicts import document, show

    if is_saved(opening.model):
        if asked.given:
            raise click.UsageError("A saved trace has its own prompt: give none.")
        verdicts = of_trace(opening, origin, out)
    elif origin is not None:
        raise click.UsageError(f"--model goes with a saved trace, and {opening.model!r} is none.")
    else:
        verdicts = of_model(opening, asked, out)
    answer(out, lambda: document(verdicts), lambda: show(verdicts, every))
    return DONE if verdicts.verdict == "holds" else BAD_NEWS
