"""`llmtrace info`: what a model is, and which signals it gives. Nothing is recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llmtrace.cli.options import Command, Opening, Out, opening_options, out_options

if TYPE_CHECKING:
    from llmtrace.model import Model


@click.command(cls=Command)
@opening_options()
@click.option(
    "--tokens-count",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Shapes and sizes for this many tokens.",
)
@out_options()
def info(opening: Opening, tokens_count: int, out: Out) -> None:
    """Say what MODEL is: its parts, its signals with their sizes and where they come from, its weights and its tokenizer."""
    from llmtrace.cli.opening import open_model
    from llmtrace.cli.output import answer

    with open_model(opening, out) as model:
        answer(out, lambda: document(model, tokens_count), lambda: show(document(model, tokens_count), model))


def document(model: Model, tokens: int) -> dict[str, Any]:
    """What `--json` prints."""
    from llmtrace.cli.anatomy import parameters, stored
    from llmtrace.schema import SCHEMA_VERSION
    from llmtrace.store.records import to_json

    info, sites = model.info, _sites(model, tokens)
    return {
        "schema_version": SCHEMA_VERSION,
        "model": info.source,
        "backend": info.backend,
        "chosen": model.chosen,
        "runtime": info.runtime,
        "versions": dict(info.versions),
        "fingerprint": info.fingerprint,
        "device": info.device,
        "preset": info.preset,
        "settings": dict(info.settings),
        "notes": list(info.notes),
        "spec": to_json(model.spec),
        "parameters": parameters(model.equations.steps.values(), model.spec.unembed.tied),
        "weights": info.weights,
        "stored": stored(model.session),
        "tokenizer": model.tokenizer is not None,
        "tokens_count": tokens,
        "sites": sites,
        "bytes": sum(site["bytes"] or 0 for site in sites if not site["on_request"]),
    }


def _sites(model: Model, tokens: int) -> list[dict[str, Any]]:
    import math

    from llmtrace.availability import availability
    from llmtrace.schema.precision import BYTES

    steps, rows = model.equations.steps, []
    for site, how in availability(model).items():
        shape = steps[site].shape(tokens)
        rows.append(
            {
                "site": site,
                "axes": list(steps[site].axes),
                "shape": list(shape),
                "dtype": how.dtype or None,
                "bytes": math.prod(shape) * BYTES[how.dtype] if how.dtype else None,
                "availability": how.kind,
                "reason": how.reason,
                "on_request": steps[site].equation.on_request,
                "equation": steps[site].equation.formula,
            }
        )
    return rows


def show(document: dict[str, Any], model: Model) -> None:
    """The parts as a tree, and one row for each kind of site; for people."""
    from llmtrace.cli.anatomy import by_kind, tree
    from llmtrace.cli.opening import types
    from llmtrace.cli.output import line, table
    from llmtrace.cli.words import human
    from llmtrace.words import counted

    for text in tree(model.spec):
        line(text)
    line()
    kinds = (
        ", ".join(f"{kind} ({count})" for kind, count in document["stored"].items()) or document["weights"] or "unknown"
    )
    line(f"{document['parameters']:,} parameters: {types(kinds, document['settings'])}")
    line("tokenizer: " + ("yes" if document["tokenizer"] else "none: prompts are token ids (--tokens 5,17,3)"))
    line(f"settings: {', '.join(f'{name} {value}' for name, value in document['settings'].items()) or 'none'}")
    line()
    rows = [
        (
            kind + (" (on request)" if first["on_request"] else ""), str(count), " ".join(first["axes"]),
            " × ".join(map(str, first["shape"])), first["dtype"] or "", "" if size is None else human(size),
            first["availability"], first["reason"],
        )
        for kind, first, count, size in by_kind(document["sites"])
    ]  # fmt: skip
    table(("site", "sites", "axes", "shape", "signals' type", "size", "", "how"), rows, right=("sites", "size"))
    line()
    line(
        f"{counted(document['tokens_count'], 'token')}: {human(document['bytes'])} for all but what is recorded on request"
    )
