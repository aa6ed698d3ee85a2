"""The residual stream: a term that is not added, or added twice; a factor of a branch; a norm after it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from llmtrace.comparison.case import Case, Hypothesis, scalar_fit
from llmtrace.comparison.hypotheses.lost import bounded
from llmtrace.comparison.specs import said
from llmtrace.schema.sites import Array
from llmtrace.spec import Branch, Carry, Sum

POINTS = ("resid_pre", "resid_mid", "resid_post")
CONTRIBUTIONS = ("attn_out", "mlp_out")


def _terms(case: Case) -> Iterator[tuple[str, Array]]:
    if not isinstance(case.step.record, Sum):
        return
    expected, carry = case.expected, case.step.record.carry
    for place, term in enumerate(case.step.terms):
        if term not in case.captured or (place == 0 and carry.factored):
            continue
        added = case.step.record.scale * np.asarray(case.captured[term]).astype(np.float64)
        yield f"{term} is not added", expected - added
        yield f"{term} is added twice", expected + added
        there = case.found.astype(np.float64) - (expected - added)
        bound = float(np.abs(there).max())
        if bounded(case, there, bound):
            yield f"{term} is clipped at ±{bound:.4g}", expected - added + np.clip(added, -bound, bound)


def _factor(case: Case) -> Iterator[tuple[str, Array]]:
    record = case.step.record
    if isinstance(record, Sum) and record.scale != 1:
        yield f"the factor {said(record.scale)} of the stream is missing", case.expected / record.scale
    if isinstance(record, Sum) and record.carry.factored:
        plain = case.with_record(record.carry, Carry(record.carry.reads))
        yield "what the stream is multiplied by where it goes on is missing", case.predict(plain)
    if not isinstance(record, Branch):
        return
    for multiplier in sorted({1.0, record.multiplier**2, 1 / record.multiplier} - {record.multiplier}):
        words = f"the branch is multiplied by {said(multiplier)} instead of {said(record.multiplier)}"
        yield words, case.expected * (multiplier / record.multiplier)
    if factor := scalar_fit(case.found, case.expected):
        words = f"the branch is multiplied by {record.multiplier * factor:.6g} instead of {said(record.multiplier)} (fitted)"
        yield words, case.expected * factor


def _post(case: Case) -> Iterator[tuple[str, Array]]:
    """Without the norm after the module."""
    record = case.step.record
    if isinstance(record, Branch) and record.post is not None:
        out = f"{case.site.removesuffix('_out')}.out"
        if out in case.captured:
            plain = np.asarray(case.captured[out]).astype(np.float64)
            yield "the norm after the branch is missing", record.multiplier * plain


ROWS = (
    Hypothesis("term-of-the-stream", POINTS, _terms),
    Hypothesis("factor-of-the-stream", (*POINTS, *CONTRIBUTIONS), _factor),
    Hypothesis("norm-after-the-branch", CONTRIBUTIONS, _post),
)
