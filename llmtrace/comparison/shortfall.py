"""What no format excuses: predictions that must stay the same."""

from __future__ import annotations

from llmtrace.comparison.record import Comparison


def shortfall(comparison: Comparison, least: float) -> str:
    """Where a candidate predicts the reference's token too seldom, in words; empty where none does. `least` is a share of predictions, on
    every prompt.
    """
    for candidate in comparison.candidates:
        for each in candidate.outputs:
            if each.same_top < least:
                return (
                    f"{candidate.model.source} predicts what {comparison.reference.source} does after {each.same_top:.1%} of the tokens of "
                    f"prompt {each.prompt + 1}, and {least:.1%} was asked for; mean KLD {each.mean_kld:.2e}"
                )
    return ""
