"""What the candidate's own files say: each field in which they differ from the reference's, taken at its word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import evolve

from llmtrace.comparison.case import Case, Hypothesis
from llmtrace.comparison.specs import leaves, unlike
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import steps


def _fields(case: Case) -> Iterator[tuple[str, Array]]:
    theirs = steps(case.candidate).get(case.site)
    mine = case.step.record
    if theirs is None or type(theirs.record) is not type(mine):
        return
    names = unlike(mine, theirs.record)
    for some in [*([name] for name in names), *([names] if len(names) > 1 else [])]:
        record = evolve(mine, **{name: getattr(theirs.record, name) for name in some})
        yield _words(mine, record), case.predict(case.with_record(mine, record))


def _words(mine: Any, theirs: Any) -> str:
    told = (f"{name.replace('.', ' ').replace('_', ' ')} {c} instead of {r}" for name, r, c in leaves(mine, theirs))
    return f"{', '.join(told)}, as its own file says"


ROWS = (Hypothesis("its-own-settings", (), _fields),)
