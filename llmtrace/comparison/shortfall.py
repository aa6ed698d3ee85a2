"""What no format excuses: predictions that must stay the same."""

from __future__ import annotations

from attrs import evolve

from llmtrace.comparison.record import Candidate, Comparison
from llmtrace.errors import OptionError


def held(comparison: Comparison, least: float) -> Comparison:
    """A comparison in which candidates that predict the reference's token too seldom are said to fall short, in their first line too.

    `least` is a share of predictions, of every prompt. Raises `OptionError` for what is none.
    """
    if not 0 <= least <= 1:  # NaN, too
        raise OptionError(
            f"The least share of predictions that stay the same is a number from 0 to 1, not {least}: 0.95."
        )
    return evolve(comparison, candidates=tuple(_held(each, least) for each in comparison.candidates))


def _short(candidate: Candidate, least: float) -> str:
    if least and not candidate.outputs:
        return "no prediction could be compared, and it was asked how many stay the same"
    short = [each for each in candidate.outputs if each.same_top < least]
    if not short:
        return ""
    worst = min(short, key=lambda each: each.same_top)
    return f"{worst.same_top:.1%} of the predictions of prompt {worst.prompt + 1} stay the same, and {least:.1%} was asked for"


def _held(candidate: Candidate, least: float) -> Candidate:
    if not (said := _short(candidate, least)):
        return candidate
    headline = candidate.headline
    if candidate.verdict == "diverges":
        headline += f"; besides, {said}"
    else:
        headline = f"falls short: {said}; {headline}"
    return evolve(candidate, shortfall=said, headline=headline)
