"""Norms: epsilon, the mean, the weight and its 1, or no norm at all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from attrs import evolve

from llmtrace.comparison.case import Case, Hypothesis
from llmtrace.comparison.hypotheses.fitting import fitted
from llmtrace.comparison.hypotheses.tensors import with_weights
from llmtrace.comparison.specs import said
from llmtrace.schema.sites import Array
from llmtrace.spec import Norm

SITES = ("scale", "normalized", "out")
EPSILONS = (1e-5, 1e-6, 1e-12, 1e-8, 1e-3, 1e-2, 0.0)


def _epsilon(case: Case) -> Iterator[tuple[str, Array]]:
    norm = case.step.record
    if not isinstance(norm, Norm):
        return
    for eps in EPSILONS:
        if eps != norm.eps:
            yield (
                f"epsilon {said(eps)} instead of {said(norm.eps)}",
                case.predict(case.with_record(norm, evolve(norm, eps=eps))),
            )
    best = fitted(
        lambda eps: case.error(case.predict(case.with_record(norm, evolve(norm, eps=eps))))[0], 1e-6, decades=12
    )
    yield (
        f"epsilon {best:.4g} instead of {said(norm.eps)} (fitted)",
        case.predict(case.with_record(norm, evolve(norm, eps=best))),
    )


def _mean(case: Case) -> Iterator[tuple[str, Array]]:
    norm = case.step.record
    if isinstance(norm, Norm):
        words = "the mean is not subtracted" if norm.centred else "the mean is subtracted"
        yield words, case.predict(case.with_record(norm, evolve(norm, centred=not norm.centred)))


def _weight(case: Case) -> Iterator[tuple[str, Array]]:
    norm = case.step.record
    if not isinstance(norm, Norm) or "w" not in case.step.weights:
        return
    name = case.step.weights["w"].name
    w = np.asarray(case.base.weights[name]).astype(np.float64)
    yield "the weight is multiplied as w + 1", case.predict(equations=with_weights(case.base, {name: w + 1}))
    yield "the weight is multiplied as w - 1", case.predict(equations=with_weights(case.base, {name: w - 1}))
    yield "the weight is not multiplied", case.predict(equations=with_weights(case.base, {name: np.ones_like(w)}))


def _skipped(case: Case) -> Iterator[tuple[str, Array]]:
    norm = case.step.record
    if isinstance(norm, Norm) and case.site.endswith(".out"):
        source = case.reference.steps[case.site.removesuffix("out") + "normalized"].signals["x"]
        if source in case.captured:
            yield "the norm is not applied", np.asarray(case.captured[source]).astype(np.float64)


ROWS = (
    Hypothesis("norm-epsilon", SITES, _epsilon),
    Hypothesis("norm-mean", SITES, _mean),
    Hypothesis("norm-weight", ("out",), _weight),
    Hypothesis("norm-missing", ("out",), _skipped),
)
