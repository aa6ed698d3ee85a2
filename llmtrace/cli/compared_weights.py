"""A comparison of weights for people: the verdict, what is not explained, and each kind of weight in a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmtrace.cli.compared import fields, labels, weights
from llmtrace.cli.output import line, scientific, table
from llmtrace.schema.steps import any_layer

if TYPE_CHECKING:
    from llmtrace.comparison.formats import Tensor
    from llmtrace.comparison.weights_only import WeightComparison


def show_weights(comparison: WeightComparison, every: bool) -> None:
    """Of each candidate what its format does not explain, and the kinds; or every tensor."""
    names = labels([each.model for each in comparison.candidates])
    for name, each in zip(names, comparison.candidates, strict=True):
        line(f"{name}: {each.headline}")
    for note in comparison.notes:
        line(f"note: {note}")
    for name, each in zip(names, comparison.candidates, strict=True):
        if len(names) > 1 or each.notes or each.missing:
            line()
        if len(names) > 1:
            line(f"candidate  {name}")
        for note in each.notes:
            line(f"note: {note}")
        if each.missing:
            line(f"missing: {', '.join(each.missing)}")
        fields(each.spec)
        bad = [tensor for tensor in each.tensors if every or not tensor.explained]
        if bad:
            line()
            weights(bad)
        if not every:
            line()
            _kinds(each.tensors)


def _kinds(tensors: Sequence[Tensor]) -> None:
    """A line for each kind of weight: how many there are, how they are stored, and the worst of them."""
    kinds: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault(any_layer(tensor.name), []).append(tensor)
    head = ("kind", "tensors", "stored", "worst error", "its format costs", "at")
    table(head, [_kind(kind, alike) for kind, alike in kinds.items()], right=("tensors", *head[3:5]))
    line("Each kind of weight in a line (--all lists every tensor).")


def _kind(kind: str, alike: Sequence[Tensor]) -> tuple[str, ...]:
    worst = max(alike, key=lambda each: each.relative_error)
    stored = Counter(each.stored for each in alike).most_common()
    formats = stored[0][0] if len(stored) == 1 else ", ".join(f"{name} × {count}" for name, count in stored)
    at = worst.name if worst.relative_error and len(alike) > 1 else ""
    return kind, str(len(alike)), formats, scientific(worst.relative_error), scientific(worst.expected), at
