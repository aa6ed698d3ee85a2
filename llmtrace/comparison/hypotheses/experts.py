"""Experts: how they are scored, chosen and weighed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from attrs import evolve

from llmtrace.comparison.case import Case, Hypothesis
from llmtrace.comparison.specs import said
from llmtrace.schema.sites import Array
from llmtrace.spec import Moe

SITES = ("mlp.router_weights", "mlp.expert_index", "mlp.out")


def _weighing(case: Case) -> Iterator[tuple[str, Array]]:
    if (moe := _moe(case)) is None:
        return
    for scoring in ("softmax", "topk_softmax", "sigmoid"):
        for renormalise in (True, False):
            changed = evolve(moe, scoring=scoring, renormalise=renormalise)
            if changed != moe:
                told = "divided by their sum" if renormalise else "as they are"
                yield f"experts weighed by {scoring.replace('_', ' ')}, {told}", _with(case, changed)


def _scale(case: Case) -> Iterator[tuple[str, Array]]:
    if (moe := _moe(case)) is not None and moe.scale != 1:
        yield f"the factor {said(moe.scale)} of the experts' weights is missing", _with(case, evolve(moe, scale=1.0))


def _shared(case: Case) -> Iterator[tuple[str, Array]]:
    if (moe := _moe(case)) is None or moe.shared is None:
        return
    if case.site.endswith("mlp.shared_out"):
        yield "the shared expert is missing", np.zeros_like(case.expected)
        if moe.shared.gated:
            ungated = evolve(moe, shared=evolve(moe.shared, gated=False))
            yield "the shared expert's gate is missing", _with(case, ungated)
    if case.site.endswith("mlp.out"):
        yield "the shared expert is missing", _with(case, evolve(moe, shared=None))
        if moe.shared.gated:
            yield (
                "the shared expert's gate is missing",
                _with(case, evolve(moe, shared=evolve(moe.shared, gated=False))),
            )


def _correction(case: Case) -> Iterator[tuple[str, Array]]:
    if (moe := _moe(case)) is not None and moe.correction:
        yield "the correction of the choice is missing", _with(case, evolve(moe, correction=False))


def _choice(case: Case) -> Iterator[tuple[str, Array]]:
    if (moe := _moe(case)) is None:
        return
    order, count = _with(case, evolve(moe, choices=moe.experts)), moe.choices
    yield "the experts of the least scores are chosen", order[:, ::-1][:, :count]
    yield "the expert of the best score is passed over", order[:, 1 : count + 1]
    yield "the chosen experts stand by number, not best first", np.sort(order[:, :count], axis=-1)


def _moe(case: Case) -> Moe | None:
    return case.step.record if isinstance(case.step.record, Moe) else None


def _with(case: Case, changed: Moe) -> Array:
    return case.predict(case.with_record(case.step.record, changed))


ROWS = (
    Hypothesis("scoring-of-experts", SITES, _weighing),
    Hypothesis("choice-of-experts", ("mlp.expert_index",), _choice),
    Hypothesis("factor-of-experts", SITES, _scale),
    Hypothesis("shared-expert", (*SITES, "mlp.shared_out"), _shared),
    Hypothesis("correction-of-experts", SITES, _correction),
)
