"""Plant a fault, compare, and judge what was said.

A fault is **visible** in a column where its relative error at its site in float32 is above the column's tolerance there; a fault of
weights, where the tensor is changed by more than what its storage type is allowed, besides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from attrs import evolve

from llmtrace.comparison.comparing import compare
from llmtrace.comparison.formats import MORE, coarse, cost
from llmtrace.comparison.record import Candidate
from llmtrace.comparison.weights import rows
from llmtrace.families.checkpoint import open_checkpoint
from llmtrace.model import Model
from llmtrace.schema.evaluate import Equations
from llmtrace.schema.steps import needed
from tests.comparison.faults.bases import plant, prompts, write_base
from tests.comparison.faults.columns import COLUMNS, OTHERS, NotPlantedError, opened
from tests.comparison.faults.fault import Fault
from tests.comparison.faults.outcome import Outcome, Status

TOKENS = ("tokens",)
"""Where a tokenizer's faults enter."""


class Bench:
    """The bases, written and opened once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()
        self._open: dict[str, Model] = {}
        self._count = 0

    def checkpoint(self, name: str) -> Path:
        """A base's directory."""
        path = self._directory / name
        return path if path.exists() else write_base(name, path)

    def reference(self, name: str) -> Model:
        """A base in float32, open."""
        if name not in self._open:
            self._open[name] = self._stack.enter_context(opened(self.checkpoint(name), COLUMNS["float32"]))
        return self._open[name]

    def copied(self, name: str, fault: Fault | None) -> Path:
        """A copy of a base, with what is wrong in its files."""
        self._count += 1
        nothing = Fault("", name, (), ())
        return plant(fault or nothing, self.checkpoint(name), self._directory / f"copy-{self._count}")

    def close(self) -> None:
        """All of them."""
        self._stack.close()


def clean(bench: Bench, base: str, column: str) -> Candidate:
    """What is said of a base that nothing was done to."""
    with opened(bench.copied(base, None), (COLUMNS | OTHERS)[column]) as candidate:
        return compare(bench.reference(base), candidate, prompts=prompts(base)).candidates[0]


def compared(bench: Bench, fault: Fault, column: str) -> Candidate:
    """What is said of a fault. Raises `NotPlantedError`."""
    with opened(bench.copied(fault.base, fault), COLUMNS[column], fault) as candidate:
        return compare(bench.reference(fault.base), candidate, prompts=prompts(fault.base)).candidates[0]


def measure(bench: Bench, fault: Fault, columns: tuple[str, ...] = tuple(COLUMNS)) -> Iterator[Outcome]:
    """One fault in several columns; its size is that of the first."""
    size: tuple[float, float] | None = None
    for column in columns:
        try:
            candidate = compared(bench, fault, column)
        except NotPlantedError as why:
            yield Outcome(fault.name, column, "not planted", cause=str(why))
            continue
        if fault.sites == TOKENS:
            yield _read(fault, column, candidate)
            continue
        expected = _expected(fault, candidate)
        shown = {each.site: each for each in candidate.sites}[expected]
        if size is None:
            size = (shown.local_error, shown.worst_token_error)
        visible = size[0] > shown.tolerance or size[1] > 2 * shown.tolerance
        visible = visible and _stored_apart(bench, fault, candidate, expected)
        yield evolve(
            judge(fault, column, candidate, expected, visible=visible), size=size[0], tolerance=shown.tolerance
        )


def judge(fault: Fault, column: str, candidate: Candidate, expected: str, *, visible: bool) -> Outcome:
    """Whether what was said is right."""
    first = candidate.first_divergence
    if first is None:
        return Outcome(fault.name, column, "missed" if visible else "below", expected, "", visible)
    said = "" if first.cause is None else first.cause.words
    right = first.site == expected
    named = right and all(word in said.lower() for word in fault.words) and first.cause.harmless == fault.harmless
    return Outcome(
        fault.name,
        column,
        "found" if right else "wrong",
        expected,
        first.site,
        visible,
        named,
        said or f"{first.kind}: {first.factor}",
    )


def _read(fault: Fault, column: str, candidate: Candidate) -> Outcome:
    """A fault of the tokenizer: it is as large in every precision."""
    first = candidate.tokens[0].what if candidate.tokens else ""
    named = all(word in first.lower() for word in fault.words)
    other = candidate.first_divergence
    found = bool(candidate.tokens) and candidate.verdict == "diverges"
    status: Status = "wrong" if other is not None else "found" if found else "missed"
    site = TOKENS[0] if other is None else other.site
    return Outcome(fault.name, column, status, TOKENS[0], site, True, named and status == "found", first)


def _expected(fault: Fault, candidate: Candidate) -> str:
    """The first of the fault's sites that the candidate hands out."""
    shown = {each.site for each in candidate.sites}
    return next((site for site in fault.sites if site in shown), fault.sites[-1])


def _stored_apart(bench: Bench, fault: Fault, candidate: Candidate, site: str) -> bool:
    """Whether a changed tensor that the site is computed from is further from the right one than its storage type may take it."""
    if fault.tensors is None:
        return True
    right, wrong = open_checkpoint(bench.checkpoint(fault.base)), open_checkpoint(bench.copied(fault.base, fault))
    stored = {tensor.name: tensor.stored for tensor in candidate.tensors}
    equations = Equations(right.spec, right.weights)
    read = equations.span(site, {each.site for each in candidate.sites} - {site}).weights
    for weight, _ in needed(right.spec):
        if weight.name not in read:
            continue
        a, b = (np.asarray(each.weights[weight.name], np.float64) for each in (right, wrong))
        size = float(np.sqrt((a * a).sum()))
        change = float(np.sqrt(((a - b) ** 2).sum())) / size if size else math.inf
        kind = stored.get(weight.name, "")
        allowed = MORE * cost(kind, a, rows(weight)) if kind and coarse(kind) else 0.0
        if change > allowed:
            return True
    return False


def shown(outcome: Outcome) -> str:
    """A cell in a line."""
    said = [outcome.column, outcome.fault, outcome.status, outcome.expected]
    said += [f"first {outcome.first}"] * (outcome.status == "wrong")
    said += ["cause not named"] * (outcome.status == "found" and not outcome.named)
    return " | ".join([*said, outcome.cause, f"{outcome.size:.1e} of {outcome.tolerance:.1e}"])
