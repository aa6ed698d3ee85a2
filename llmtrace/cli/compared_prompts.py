"""A comparison prompt by prompt, for people: a table for each candidate, and a matrix of candidates × prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from llmtrace.cli.output import line, scientific, table
from llmtrace.view.comparison import labels

if TYPE_CHECKING:
    from llmtrace.comparison.by_prompt import PromptErrors, Spread
    from llmtrace.comparison.outputs import Outputs
    from llmtrace.comparison.record import Candidate, Comparison

HEADS = (
    "prompt",
    "predictions",
    "mean KLD",
    "worst KLD",
    "same top",
    "largest shift",
    "worst site",
    "× rounding",
    "inherited",
)
QUANTITIES = ("mean_kld", "worst_kld", "same_top", "largest_shift", "times", "inherited_error")
"""What these columns are called in JSON, those that have a spread over prompts."""
STATISTICS = ("mean", "deviation", "standard_error", "least", "most")
"""Rows below the prompts, by the name of the field."""


def by_prompt(comparison: Comparison, candidate: Candidate) -> None:
    """One candidate: a row a prompt, and below several what they come to; nothing where no prompt was judged."""
    outputs = {each.prompt: each for each in candidate.outputs}
    rows = [_row(comparison, each, outputs.get(each.prompt)) for each in candidate.by_prompt]
    if not rows:
        return
    line()
    if len(rows) > 1:
        spread = {each.quantity: each for each in candidate.spread}
        rows += [_statistic(name, spread) for name in STATISTICS]
    table(HEADS, rows, right=[head for head in HEADS if head not in ("prompt", "worst site")])


def matrix(comparison: Comparison) -> None:
    """Candidates × prompts: the mean KLD and the share of predictions that stay the same; with the mean over prompts ± its standard error."""
    names = labels([{"model": each.model.source, "backend": each.model.backend} for each in comparison.candidates])
    heads = ("mean KLD, same top", *(each.name for each in comparison.prompts), "all")
    rows = []
    for name, candidate in zip(names, comparison.candidates, strict=True):
        outputs = {each.prompt: each for each in candidate.outputs}
        cells = (outputs.get(number) for number in range(len(comparison.prompts)))
        rows.append((name, *(f"{o.mean_kld:.2e}, {o.same_top:.1%}" if o else "–" for o in cells), _all(candidate)))
    table(heads, rows, right=heads[1:])


def _all(candidate: Candidate) -> str:
    spread = {each.quantity: each for each in candidate.spread}
    if "mean_kld" not in spread:
        return "–"
    kld, same = spread["mean_kld"], spread["same_top"]
    if kld.standard_error is None or same.standard_error is None:
        return f"{kld.mean:.2e}, {same.mean:.1%}"
    return f"{kld.mean:.2e} ± {kld.standard_error:.0e}, {same.mean:.1%} ± {100 * same.standard_error:.1f}"


def _row(comparison: Comparison, errors: PromptErrors, o: Outputs | None) -> tuple[str, ...]:
    told = ("–",) * 5 if o is None else (str(o.tokens), *(_shown(name, getattr(o, name)) for name in QUANTITIES[:4]))
    times, inherited = (_shown(name, getattr(errors, name)) for name in QUANTITIES[4:])
    return (comparison.prompts[errors.prompt].name, *told, errors.site or "–", times, inherited)


def _statistic(name: str, spread: Mapping[str, Spread]) -> tuple[str, ...]:
    cells = [
        _shown(quantity, getattr(spread[quantity], name) if quantity in spread else None) for quantity in QUANTITIES
    ]
    title = f"mean of {max(each.prompts for each in spread.values())}" if name == "mean" else name.replace("_", " ")
    return (title, "", *cells[:4], "", *cells[4:])


def _shown(quantity: str, value: float | None) -> str:
    if value is None:
        return "–"
    match quantity:
        case "same_top":
            return f"{value:.1%}"
        case "largest_shift":
            return f"{value:.2%}"
        case "mean_kld" | "worst_kld":
            return f"{value:.2e}"
    return scientific(value)
