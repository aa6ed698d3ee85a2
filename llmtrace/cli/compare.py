"""`llmtrace compare`: one model on two runtimes, formats or precisions. Where do they stop agreeing, and why?

**Side**: an open model, or a saved trace (`.trace`). The first is the reference, the others are held to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from llmtrace.cli.exits import BAD_NEWS, DONE
from llmtrace.cli.options import Command, Out, max_bytes_option, out_options
from llmtrace.cli.parameters import Indices, Share, pairs
from llmtrace.cli.prompts import asked_for

if TYPE_CHECKING:
    from llmtrace.comparison.record import Comparison

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
@click.option(
    "--prompt-set",
    type=click.Choice(["quick", "full"]),
    help="The built-in prompts that are run where none are given; default: quick.",
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
    "--budget", is_flag=True, help="Find what each weight costs: it is put into the reference, one at a time."
)
@click.option(
    "--text",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="A text to find it on, in chunks as llama.cpp's perplexity reads one.",
)
@click.option("--context", metavar="N", type=click.IntRange(4), help="Tokens of a chunk; default: 512.")
@click.option("--chunks", metavar="N", type=click.IntRange(1), help="So many chunks at most.")
@click.option(
    "--mechanisms",
    is_flag=True,
    help="Find whether the answers have the same reasons: influence, known heads, the lens.",
)
@click.option("--html", metavar="FILE", type=click.Path(dir_okay=False), help="Write the report, one page.")
@click.option(
    "--node-data", metavar="FILE", type=click.Path(dir_okay=False), help="Write the local errors for Model Explorer."
)
@click.option(
    "--least-same-top",
    type=Share(),
    default=0.0,
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
    prompt_set: str | None,
    preset: Preset,
    reference_preset: Preset | None,
    options: dict[str, str],
    reference_options: dict[str, str],
    weights_only: bool,
    every: bool,
    budget: bool,
    text: str | None,
    context: int | None,
    chunks: int | None,
    mechanisms: bool,
    html: str | None,
    node_data: str | None,
    least_same_top: float,
    max_bytes: int | None,
    out: Out,
) -> int:
    """Hold each CANDIDATE to REFERENCE: the same model on another runtime, in another format or precision.

    Tokens are compared first. Then each signal of the candidate is held to the reference's equation and weights, applied to the candidate's
    own inputs, so that a fault shows where it is and nowhere after; and explanations are tried until one accounts for it. A name may say
    its backend (torch:DIRECTORY, llamacpp:MODEL.gguf). Without prompts, a built-in set is run. Exits 1 if any candidate diverges. --budget says
    besides which weights cost the predictions what.
    """
    from llmtrace.cli.compared_budget import read_text
    from llmtrace.cli.destination import check_destination
    from llmtrace.cli.output import answer, say
    from llmtrace.cli.progress import Progress

    if node_data is not None and len(candidates) > 1:
        raise click.UsageError("--node-data writes the errors of one candidate: give one.")
    if weights_only:
        _run_nothing(
            prompts=texts or ids or file or prompt_set or html or node_data or least_same_top,
            mechanisms=mechanisms,
            budget=budget,
        )
    _read_as(text, budget, context or chunks)
    wanted = asked_for(texts, ids, file)
    read = None if text is None else read_text(text)
    if wanted and prompt_set:
        raise click.UsageError("There are prompts, and --prompt-set besides: give one of the two.")
    for name in (html, node_data):
        if name is not None:
            check_destination(name, reference, *candidates, file, text)
    say(out, f"comparing {', '.join(candidates)} with {reference} …")
    if weights_only:
        from llmtrace.cli.compared_weights import show_weights
        from llmtrace.comparison.weights_only import compare_weights_only

        with Progress(out) as progress:
            found = compare_weights_only(
                reference,
                *candidates,
                options=[reference_options, *[options] * len(candidates)],
                progress=progress,
            )
        answer(out, found.to_json, lambda: show_weights(found, every))
        return DONE if found.passed else BAD_NEWS
    from llmtrace.cli.compared import show
    from llmtrace.comparison.budget_text import CONTEXT
    from llmtrace.comparison.comparing import compare as run
    from llmtrace.comparison.probes import RefusedPromptError
    from llmtrace.comparison.shortfall import held

    try:
        with Progress(out) as progress:
            found_all = run(
                reference,
                *candidates,
                prompts=[each.prompt for each in wanted] or None,
                prompt_set=prompt_set,
                preset=preset,
                reference_preset=reference_preset,
                options=[reference_options, *[options] * len(candidates)],
                max_bytes=max_bytes,
                budget=budget,
                mechanisms=mechanisms,
                text=read,
                context=context or CONTEXT,
                chunks=chunks,
                progress=progress,
            )
    except RefusedPromptError as error:
        where = wanted[error.number].where if wanted else ""
        raise click.UsageError(f"{where}: {error.why}" if where else error.why) from error
    comparison = held(found_all, least_same_top)
    try:
        _write(comparison, node_data, html, out)
    finally:  # what took so long to find is told, even where a file cannot be written
        answer(out, comparison.to_json, lambda: show(comparison, every))
    return DONE if comparison.passed else BAD_NEWS


def _run_nothing(*, prompts: object, mechanisms: bool, budget: bool) -> None:
    """Refuse what needs a run beside --weights-only."""
    if prompts:
        raise click.UsageError(
            "--weights-only runs nothing: give no prompts, no --html, no --node-data, no --least-same-top."
        )
    if mechanisms:
        raise click.UsageError("--weights-only runs nothing, and --mechanisms runs both sides: give one of the two.")
    if budget:
        raise click.UsageError("--weights-only runs nothing, and --budget runs the reference: give one of the two.")


def _read_as(text: str | None, budget: bool, chunked: object) -> None:
    """Refuse a text that nothing is made on, and chunks of none."""
    if text is None and chunked:
        raise click.UsageError("--context and --chunks say how a text is read: give one with --text.")
    if text is not None and not budget:
        raise click.UsageError("--text is what a budget is made on: give --budget too.")


def _write(comparison: Comparison, node_data: str | None, html: str | None, out: Out) -> None:
    """The files that were asked for. Raises `TraceFileError`."""
    from llmtrace.cli.output import say

    if node_data is not None:
        from llmtrace.comparison.node_data import write

        write(comparison.candidates[0], Path(node_data))
        say(out, f"wrote {node_data}")
    if html is not None:
        comparison.save_html(html)
        say(out, f"wrote {html}")
