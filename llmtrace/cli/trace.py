"""`llmtrace trace`: run a model over a prompt and record its signals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

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
from llmtrace.cli.parameters import Indices

if TYPE_CHECKING:
    from llmtrace.trace import Trace


@click.command(cls=Command)
@opening_options()
@asked_options()
@click.option(
    "--capture",
    metavar="PATTERN",
    multiple=True,
    help="Sites to record (blocks.*.attn.pattern); default: all. May be repeated.",
)
@click.option("--heads", type=Indices(), help="Only these heads: 0,3..5.")
@click.option("--channels", type=Indices(), help="Only these channels of the last axis.")
@click.option(
    "--token-index", type=Indices(), help="Only these tokens (of token and query axes, never keys); -1 is the last."
)
@max_bytes_option()
@click.option("--save", metavar="FILE", type=click.Path(dir_okay=False), help="Write the trace to a file.")
@click.option("--all", "every", is_flag=True, help="List every signal, not those of all layers together.")
@out_options()
def trace(
    opening: Opening,
    asked: Asked,
    capture: tuple[str, ...],
    heads: tuple[int, ...] | None,
    channels: tuple[int, ...] | None,
    token_index: tuple[int, ...] | None,
    max_bytes: int | None,
    save: str | None,
    every: bool,
    out: Out,
) -> None:
    """Run MODEL over PROMPT and record its signals.

    Lists the recorded signals; --save keeps their values in one file, which `llmtrace.load`, verify and view read.
    """
    from llmtrace.cli.asking import read_prompt, written_out
    from llmtrace.cli.destination import check_destination
    from llmtrace.cli.opening import is_saved, open_model
    from llmtrace.cli.output import answer, say
    from llmtrace.cli.words import human
    from llmtrace.selection import select

    prompt = read_prompt(asked)
    if save is not None:
        check_destination(save, opening.model, asked.prompt_file)
    with open_model(opening, out) as model:
        selection = select(*(capture or ("**",)), heads=heads, channels=channels, tokens=token_index)
        found = model.trace(written_out(model, prompt, asked, out), capture=selection, max_bytes=max_bytes)
        if save is not None:
            found.save(save)
            hint = "" if is_saved(save) else "; verify and view take it once its name ends in .trace"
            say(out, f"wrote {save} ({human(found.bytes)} of signals){hint}")
        answer(out, lambda: document(found, save), lambda: show(found, every))


def document(trace: Trace, file: str | None) -> dict[str, Any]:
    """What `--json` prints."""
    from llmtrace.documents import token_document

    signals = [
        {
            "site": signal.site,
            "axes": list(signal.axes),
            "shape": list(signal.shape),
            "dtype": str(signal.dtype),
            "provenance": signal.provenance.kind,
            "provenance_detail": signal.provenance.detail,
            "inputs": list(signal.provenance.inputs),
            "bytes": signal.bytes,
        }
        for signal in trace.signals.values()
    ]
    return {
        "schema_version": trace.schema_version,
        "model": trace.model.source,
        "backend": trace.model.backend,
        "preset": trace.model.preset,
        "notes": list(trace.model.notes),
        "tokens": [token_document(token) for token in trace.tokens],
        "signals": signals,
        "bytes": trace.bytes,
        "file": file,
    }


def show(trace: Trace, every: bool) -> None:
    """The tokens and a table of signals, layers that are alike in one row; for people."""
    from llmtrace.cli.output import console, line, prompt_line, table
    from llmtrace.cli.words import human
    from llmtrace.view.tables import signals_table
    from llmtrace.words import counted

    prompt_line(trace.tokens)
    line()
    if every:
        rows = [
            (s.site, " ".join(s.axes), " × ".join(map(str, s.shape)), str(s.dtype), f"{s.bytes:,}", str(s.provenance))
            for s in trace.signals.values()
        ]
        table(("site", "axes", "shape", "type", "bytes", "where from"), rows, right=("bytes",))
    else:
        console().print(signals_table(trace))
    line()
    line(f"{counted(len(trace), 'signal')}, {human(trace.bytes)}")
