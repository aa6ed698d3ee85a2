"""The page of a comparison: every record that `llmtrace.compare` returns, with its fields and properties as their docstrings say."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from llmtrace.comparison import budget, by_prompt, by_token, flips, formats, outputs, record, tokens, weights_only
from records import described
from table import NOTICE, code, table

INTRO = """# The records of a comparison

What `llmtrace.compare` returns is a `Comparison`, frozen, as all its records; `print(found)` shows a line for each candidate. `to_json()` gives
the same as `llmtrace compare --json`, whose document has [a schema](../schemas/compare.schema.json). [The guide](../compare.md) says how to read
them. A default of `–` means that the field is always given.

"""
RECORDS = (
    record.Comparison, record.RunPrompt, record.Candidate, record.Divergence, record.Cause, record.Tried, record.SiteError, by_token.WorstToken,
    record.Difference, tokens.TokenDifference, outputs.Outputs, by_prompt.PromptErrors, by_prompt.Spread, by_token.TokenErrors,
    by_token.TokenNorms, formats.Tensor, flips.Flips, record.Nearer, budget.Budget,
    budget.Swap, budget.Distance, budget.Unswapped, weights_only.WeightComparison, weights_only.WeightCandidate,
)  # fmt: skip
"""The whole first, then its parts as they come, then those of weights alone."""


def page() -> str:
    """The whole page."""
    return (NOTICE + INTRO + "".join(f"{described(kind)}{_properties(kind)}" for kind in RECORDS)).rstrip() + "\n"


def _properties(kind: type) -> str:
    rows = [(code(name), words) for name, words in _documented(kind)]
    return f"What follows from them:\n\n{table(('property', 'what'), rows)}" if rows else ""


def _documented(kind: type) -> Iterator[tuple[str, str]]:
    for name, value in vars(kind).items():
        if isinstance(value, property):
            yield name, inspect.cleandoc(value.__doc__ or "")
