"""`llmtrace view`: the page of a trace, saved or made for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmtrace.cli.opening import SUFFIX
from llmtrace.cli.options import (
    Asked,
    Command,
    Opening,
    Out,
    asked_options,
    max_bytes_option,
    opening_options,
    out_options,
)

if TYPE_CHECKING:
    from llmtrace.trace import Trace


@click.command(cls=Command)
@opening_options()
@asked_options()
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Where to write the page; default: NAME.trace.html here.",
)
@max_bytes_option()
@click.option("--open", "show_it", is_flag=True, help="Open the page in a browser.")
@out_options()
def view(opening: Opening, asked: Asked, html: str | None, max_bytes: int | None, show_it: bool, out: Out) -> None:
    """Write the page of a saved trace (MODEL is FILE.trace), or of a new one of MODEL and PROMPT.

    The page holds the attention patterns and a list of all signals; it opens without a network. Its path is printed.
    """
    from llmtrace.cli.destination import check_destination
    from llmtrace.cli.opening import is_saved
    from llmtrace.cli.output import answer, line
    from llmtrace.trace import load
    from llmtrace.view.trace import save_trace_page

    saved = is_saved(opening.model)
    if saved and asked.given:
        raise click.UsageError("A saved trace has its own prompt: give none.")
    page = html if html is not None else default_page(opening.model)
    check_destination(page, opening.model, asked.prompt_file)
    trace = load(opening.model) if saved else _run(opening, asked, max_bytes, out)
    save_trace_page(page, trace)
    answer(out, lambda: document(trace, page), lambda: line(page))
    if show_it:
        click.launch(Path(page).resolve().as_uri())


def default_page(source: str) -> str:
    """Where the page goes if nobody says: a name that nothing else has, so that `index.trace` does not overwrite a site's `index.html`."""
    return f"{Path(source.rstrip('/')).name.replace(':', '-').removesuffix(SUFFIX)}{SUFFIX}.html"


def _run(opening: Opening, asked: Asked, max_bytes: int | None, out: Out) -> Trace:
    from llmtrace.cli.asking import read_prompt, written_out
    from llmtrace.cli.opening import open_model

    prompt = read_prompt(asked)
    with open_model(opening, out) as model:
        return model.trace(written_out(model, prompt, asked, out), max_bytes=max_bytes)


def document(trace: Trace, page: str) -> dict[str, Any]:
    """What `--json` prints."""
    from llmtrace.documents import token_document

    return {
        "schema_version": trace.schema_version,
        "model": trace.model.source,
        "backend": trace.model.backend,
        "tokens": [token_document(token) for token in trace.tokens],
        "page": page,
    }
