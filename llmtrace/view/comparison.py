"""The page of a comparison, from the document that `llmtrace compare --json` prints.

**Kind**: what a site is called whichever block it stands in: `attn.q`. **Status**: as in the document, or `explained`: beyond what rounding
explains by the reference's weights, and by no more than how the candidate's are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from llmtrace.errors import OptionError
from llmtrace.schema.steps import any_layer, layer_of
from llmtrace.view import pack
from llmtrace.view.comparison_plain import plain
from llmtrace.view.files import write
from llmtrace.view.html import fill
from llmtrace.view.pack import Document


def comparison_page(document: Document, title: str | None = None) -> str:
    """One page. Raises `OptionError` for the document of weights alone, which has no site to show."""
    if any("sites" not in each for each in document["candidates"]):
        raise OptionError("There is no page of weights alone: compare the models, or ask for --json.")
    reference = document["reference"]
    ours, *names = labels([reference, *document["candidates"]])
    prompts = [
        {**pack.safe(each), "name": pack.safe(_named(each)), "tokens": pack.tokens(each["tokens"])}
        for each in document["prompts"]
    ]
    content = {
        "kind": "comparison",
        "reference": {"name": pack.safe(ours), "facts": _facts(reference)},
        "prompts": prompts,
        "norms": [
            {"site": pack.safe(each["site"]), "prompt": each["prompt"], "norms": pack.grid(_numbers(each["norms"]))}
            for each in document.get("norms", ())
        ],
        "notes": pack.safe(document["notes"]),
        "candidates": [
            candidate(each, name) for each, name in zip(document["candidates"], names, strict=True)
        ],
    }  # fmt: skip
    against = f"{' and '.join(names)} against {ours}"
    return fill(content, title or f"Comparison: {against}", plain(content))


def save_comparison_page(path: str | Path, document: Document, title: str | None = None) -> None:
    """Write the page, atomically. Raises `TraceFileError`, and leaves an older file as it was."""
    write(path, comparison_page(document, title))


def labels(models: Sequence[Document]) -> list[str]:
    """What models are called: each by as much of the end of its path as no other has, else by its backend too, else by its number.

    >>> labels([{"model": "a/x.gguf", "backend": "llamacpp"}, {"model": "b/y.onnx", "backend": "onnxruntime"}])
    ['x.gguf', 'y.onnx']
    """
    paths = [PurePath(str(each["model"])).parts or ("",) for each in models]
    names = [_end(path, [*paths[:at], *paths[at + 1 :]]) for at, path in enumerate(paths)]
    for at, each in enumerate(models):
        if paths.count(paths[at]) > 1:
            names[at] = f"{each['backend']}:{paths[at][-1]}"
    return [name if names.count(name) == 1 else f"{name} ({at})" for at, name in enumerate(names, 1)]


def _end(path: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> str:
    """The shortest end of a path that none of the others has."""
    lengths = (count for count in range(1, len(path)) if all(other[-count:] != path[-count:] for other in others))
    return str(PurePath(*path[-next(lengths, len(path)) :]))


def candidate(document: Document, name: str) -> dict[str, Any]:
    """One candidate, for the page."""
    faults = {
        (any_layer(each["site"]), layer) for each in document["divergences"] for layer in each["layers"] or (None,)
    }
    return {
        **pack.safe({key: value for key, value in document.items() if key not in ("sites", "tokens", "by_token")}),
        "name": pack.safe(name),
        "facts": _facts(document),
        "sites": [_site(each, faults) for each in document["sites"]],
        "tokens": [
            {**pack.safe(each), **{side: pack.token(each[side]) for side in ("reference", "candidate")}}
            for each in document["tokens"]
        ],
        "strips": [
            {
                "site": pack.safe(each["site"]),
                "prompt": each["prompt"],
                "local": pack.grid(_numbers(each["local_errors"])),
                "inherited": pack.grid(_numbers(each["inherited_errors"])),
            }
            for each in document["by_token"]
        ],
    }


def _site(site: Document, faults: set[tuple[str, int | None]]) -> dict[str, Any]:
    layer, kind = layer_of(site["site"]), any_layer(site["site"])
    status = "explained" if site["status"] == "violated" and (kind, layer) not in faults else site["status"]
    shown = {**site, "layer": layer, "kind": kind.removeprefix("blocks.L."), "status": status}
    return pack.safe(shown)  # type: ignore[no-any-return]


def _named(prompt: Document) -> str:
    """A prompt's name; one that has but a number is called a prompt."""
    name = str(prompt["name"])
    return f"prompt {name}" if name.isdecimal() else name


def _numbers(values: Sequence[float | None]) -> list[float]:
    """A document's null stands for what is infinite here: nothing is missing inside of a row."""
    return [float("inf") if each is None else each for each in values]


def _facts(side: Document) -> list[list[str]]:
    rows = [[name, side[name]] for name in ("model", "backend", "weights", "preset") if side[name]]
    return pack.safe(rows)  # type: ignore[no-any-return]
