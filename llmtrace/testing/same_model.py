"""For the tests of whoever converts or quantises models: fail where a model is no longer the one that it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmtrace.comparison.record import Comparison
from llmtrace.model import Prompt
from llmtrace.protocol import Preset

if TYPE_CHECKING:
    from llmtrace.comparison.sides import Given

SHOWN = 5
"""Divergences that a failure lists."""


def assert_same_model(
    reference: Given,
    candidate: Given,
    *,
    prompts: Sequence[Prompt] | None = None,
    preset: Preset = "shipped",
    least_same_top: float = 0.0,
) -> Comparison:
    """Raise `AssertionError` where the candidate diverges, with the sites and causes; return the comparison where it does not.

    Arguments as those of `llmtrace.compare`. What the candidate's format explains does not fail, however much it is: `least_same_top` is the
    share of predictions that must stay the same at least, on every prompt.
    """
    from llmtrace.comparison.comparing import compare
    from llmtrace.comparison.shortfall import held
    from llmtrace.comparison.verdict import told

    __tracebackhide__ = True
    found = held(compare(reference, candidate, prompts=prompts, preset=preset), least_same_top)
    (one,) = found.candidates
    if one.verdict == "diverges":
        lines = [f"{each.site}: {told(each)}" for each in one.divergences[:SHOWN]]
        raise AssertionError("\n  ".join([f"{one.model.source} {one.headline}", *lines]))
    if not one.passed:
        raise AssertionError(str(one))
    return found
