"""`llmtrace compare`: one model on two runtimes, formats or precisions. Where do they stop agreeing, and why?

**Side**: an open model, or a saved trace (`.trace`). The first is the reference, the others are held to it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import click

from llmtrace.cli.exits import BAD_NEWS, DONE
from llmtrace.cli.options import Command, Out, max_bytes_option, out_options
from llmtrace.cli.parameters import Indices, pairs

Preset = Literal["exact", "shipped"]
PRESETS = click.Choice(["exact", "shipped"])


@click.command(cls=Command)
@click.argument("reference", metavar="REFERENCE", type=click.Path())
@click.argument("candidates", metavar="CANDIDATE...", nargs=-1, required=True, type=click.Path())
@click.option("--prompt", "texts", metavar="TEXT", multiple=True, help="A prompt; may be repeated.")
@click.option(
    "--tokens", "ids", type=Indices(), multiple=True, help="Token ids in place of a prompt: 5,17,3; may be repeated."
)
@click.option(
    "--prompts",
    "file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help='Prompts from a file: one a line, or lines of JSON: "a text", or [5, 17, 3].',
)
@click.option("--preset", type=PRESETS, default="shipped", show_default=True, help="Settings of all sides.")
@click.option("--reference-preset", type=PRESETS, help="Settings of the reference alone.")
@click.option(
    "-o",
    "--option",
    "options",
    metavar="NAME=VALUE",
    multiple=True,
    callback=pairs,
    help="A setting of the candidates' backend.",
)
@click.option(
    "--reference-option",
    "reference_options",
    metavar="NAME=VALUE",
    multiple=True,
    callback=pairs,
    help="A setting of the reference's backend.",
)
@click.option("--weights-only", is_flag=True, help="Compare the weights, tensor by tensor, and run nothing.")
@click.option("--all", "every", is_flag=True, help="List every site, or every tensor.")
@click.option(
    "--node-data", metavar="FILE", type=click.Path(dir_okay=False), help="Write the local errors for Model Explorer."
)
@click.option(
    "--least-same-top",
    type=click.FloatRange(0, 1),
    default=0.0,
    metavar="SHARE",
    help="Exit with 1, too, where fewer predictions stay the same, of any prompt: 0.95.",
)
@max_bytes_option()
@out_options()
def compare(
    reference: str,
    candidates: tuple[str, ...],
    texts: tuple[str, ...],
    ids: tuple[tuple[int, ...], ...],
    file: str | None,
    preset: Preset,
    reference_preset: Preset | None,
    options: dict[str, str],
    reference_options: dict[str, str],
    weights_only: bool,
    every: bool,
    node_data: str | None,
    least_same_top: float,
    max_bytes: int | None,
    out: Out,
) -> int:
    """Hold each CANDIDATE to REFERENCE: the same model on another runtime, in another format or precision.

    Tokens are compared first. Then each signal of the candidate is held to the reference's equation and weights, applied to the candidate's
    own inputs, so that a fault shows where it is and nowhere after; and explanations are tried until one accounts for it. A name may say
    its backend (torch:DIRECTORY, llamacpp:MODEL.gguf). Without prompts, a built-in set is run. Exits 1 if any candidate diverges.
    """
    from llmtrace.cli.output import answer, say

    if node_data is not None and len(candidates) > 1:
        raise click.UsageError("--node-data writes the errors of one candidate: give one.")
    if weights_only and (texts or ids or file or node_data or least_same_top):
        raise click.UsageError("--weights-only runs nothing: give no prompts, no --node-data, no --least-same-top.")
    say(out, f"comparing {', '.join(candidates)} with {reference} …")
    if weights_only:
        from llmtrace.cli.compared import show_weights
        from llmtrace.comparison.weights_only import compare_weights_only

        found = compare_weights_only(reference, *candidates, options=[reference_options, *[options] * len(candidates)])
        answer(out, found.to_json, lambda: show_weights(found, every))
        return DONE if found.verdict != "diverges" else BAD_NEWS
    from llmtrace.cli.compared import show
    from llmtrace.comparison.comparing import compare as run
    from llmtrace.comparison.shortfall import shortfall

    comparison = run(
        reference,
        *candidates,
        prompts=_prompts(texts, ids, file),
        preset=preset,
        reference_preset=reference_preset,
        options=[reference_options, *[options] * len(candidates)],
        max_bytes=max_bytes,
    )
    if node_data is not None:
        from llmtrace.comparison.node_data import write

        write(comparison.candidates[0], Path(node_data))
        say(out, f"wrote {node_data}")
    answer(out, comparison.to_json, lambda: show(comparison, every))
    if missed := shortfall(comparison, least_same_top):
        say(out, missed)
    return DONE if comparison.verdict != "diverges" and not missed else BAD_NEWS


def _prompts(texts: Sequence[str], ids: Sequence[Sequence[int]], file: str | None) -> list[str | list[int]] | None:
    """What was asked for, in any of its forms; None for nothing."""
    given: list[str | list[int]] = [*texts, *(list(each) for each in ids)]
    if file is not None:
        given += _read(file)
    return given or None


def _read(file: str) -> list[str | list[int]]:
    """A file of prompts. Raises a usage error that names the line."""
    try:
        with click.open_file(file, encoding="utf-8") as lines:
            found = [_line(text.rstrip("\r\n"), number, file) for number, text in enumerate(lines, 1) if text.strip()]
    except UnicodeDecodeError as error:
        raise click.UsageError(f"The prompts in {file!r} are not valid UTF-8.") from error
    if not found:
        raise click.UsageError(f"There is no prompt in {file!r}.")
    return found


def _line(text: str, number: int, file: str) -> str | list[int]:
    if text[:1] not in ('"', "["):
        return text
    try:
        value: Any = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, str) or (isinstance(value, list) and all(type(each) is int for each in value)):
        return value
    raise click.UsageError(f"Line {number} of {file!r} is neither a text nor a list of token ids.")
