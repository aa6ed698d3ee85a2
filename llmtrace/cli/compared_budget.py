"""A quantisation budget for people: the sentence, then the weights by what they cost, then what all come to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from llmtrace.cli.output import line, scientific, table
from llmtrace.comparison.budget_words import nats
from llmtrace.words import counted

if TYPE_CHECKING:
    from llmtrace.comparison.budget import Budget, Distance, Swap

LISTED = 15
"""So many weights are listed, unless all are asked for."""
SEEN = 0.005
"""A share of the sum from which on it is said by how much all at once cost another."""


def show_budget(budget: Budget, every: bool) -> None:
    """After a blank line."""
    line()
    line(f"Budget: {budget.headline}.")
    for note in budget.notes:
        line(f"note: {note}")
    swaps = budget.swaps if every else budget.swaps[:LISTED]
    text = budget.perplexity is not None
    heads = (
        "weight",
        "stored",
        "KiB",
        "error",
        "KL in nats",
        "±",
        "a MiB",
        "share",
        "so far",
        "same top",
        *(("ln PPL ratio", "RMS Δp") * text),
    )
    table(heads, [*map(_swap, swaps), *_ends(budget)], right=heads[2:])
    if rest := len(budget.swaps) - len(swaps):
        line(f"{counted(rest, 'more weight')} {'costs' if rest == 1 else 'cost'} less (--all lists all).")
    where = (
        counted(budget.pieces, "prompt")
        if budget.context is None
        else f"{counted(budget.pieces, 'chunk')} of {counted(budget.context, 'token')}"
    )
    error = "; ± its standard error over these" if budget.pieces > 1 else ""
    line(f"KL: the reference first, mean of {counted(budget.predictions, 'prediction')} on {where}{error}.")
    if (share := budget.relative_excess) is not None and SEEN < abs(share) < math.inf:
        how = "more" if share > 0 else "less"
        line(f"All at once cost {nats(abs(budget.excess))} ({abs(share):.0%}) {how} than the sum: costs do not add up.")
    if budget.rest is not None and budget.runtime is not None:
        line(
            f"The candidate's KL less that of all its weights: {budget.rest:+.3g} nats; its runtime alone, held to the reference with its weights: "
            f"{nats(budget.runtime.kl)}."
        )
    if budget.perplexity is not None:
        theirs = budget.candidate.perplexity if budget.candidate else None
        beside = f"; the candidate's {theirs:.4f}" if theirs is not None else ""
        line(f"Perplexity of the reference: {budget.perplexity:.4f}{beside}.")
    for each in budget.unswapped:
        line(f"not swapped: {', '.join(each.names[:3])}{'…' * (len(each.names) > 3)}: {each.why}")


def _swap(swap: Swap) -> tuple[str, ...]:
    size = "" if swap.bytes is None else f"{swap.bytes / 1024:,.0f}"
    dear = "" if swap.kl_per_mebibyte is None else scientific(swap.kl_per_mebibyte)
    name = " with ".join(swap.names)
    return (
        name,
        swap.stored,
        size,
        scientific(swap.relative_error),
        *_cells(swap.distance, dear, f"{swap.share:.1%}", f"{swap.cumulative:.1%}"),
    )


def _ends(budget: Budget) -> Iterator[tuple[str, ...]]:
    for name, distance in (
        ("all at once", budget.together),
        ("the candidate", budget.candidate),
        ("its runtime alone", budget.runtime),
    ):
        if distance is not None:
            yield (name, "", "", "", *_cells(distance, "", "", ""))


def _cells(d: Distance, dear: str, share: str, so_far: str) -> tuple[str, ...]:
    error = "" if d.kl_error is None else scientific(d.kl_error)
    cells = (scientific(d.kl), error, dear, share, so_far, f"{d.same_top:.1%}")
    if d.log_ppl_ratio is None or d.rms_shift is None:
        return cells
    return (*cells, f"{d.log_ppl_ratio:+.2e}", f"{d.rms_shift:.2%}")


def read_text(file: str) -> str:
    """A text to make a budget on, without the line feed at its end, as llama.cpp reads one. Raises a usage error where it is no UTF-8."""
    try:
        with click.open_file(file, encoding="utf-8") as opened:
            text: str = opened.read()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"The text in {file!r} is not valid UTF-8.") from error
    return text.removesuffix("\n")
