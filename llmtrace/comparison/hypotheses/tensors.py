"""Weights: another tensor than the reference's, as far as it is recognised what was done to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from attrs import evolve

from llmtrace.comparison.case import Case, Hypothesis
from llmtrace.comparison.hypotheses.rounding import TYPES, rounded
from llmtrace.comparison.pair import Pair
from llmtrace.comparison.recognised import CHANGES, off
from llmtrace.comparison.weights import others
from llmtrace.overlaid import Over
from llmtrace.schema.evaluate import Equations
from llmtrace.schema.sites import Array


def _changed(case: Case) -> Iterator[tuple[str, Array]]:
    """The reference's tensors with what is often done to them, where the candidate's own cannot be read."""
    if case.own is not None:
        return
    for weight in case.step.weights.values():
        reference = np.asarray(case.reference.weights[weight.name])
        pair = Pair(weight.name, weight.axes, reference, reference, others(case.reference, weight))
        for change in CHANGES:
            for words, array in change(pair):
                if array.shape == reference.shape and off(array, reference) > 0:
                    yield (
                        f"{weight.name}: {words}",
                        case.predict(equations=with_weights(case.reference, {weight.name: array})),
                    )
        yield (
            f"{weight.name} is missing",
            case.predict(equations=with_weights(case.reference, {weight.name: np.zeros_like(reference)})),
        )


def _missing(case: Case) -> Iterator[tuple[str, Array]]:
    """A bias that is not added."""
    for name, weight in case.step.weights.items():
        if name.startswith("b"):
            zero = np.zeros(weight.shape)
            yield (
                f"the bias {weight.name} is not added",
                case.predict(equations=with_weights(case.base, {weight.name: zero})),
            )


def _rounded(case: Case) -> Iterator[tuple[str, Array]]:
    """Weights that were rounded to a smaller type."""
    matrices = [weight.name for weight in case.step.weights.values() if "W_" in weight.name]
    for name, dtype in TYPES.items() if matrices else ():
        changed = {each: rounded(case.reference.weights[each], dtype) for each in matrices}
        yield f"{', '.join(matrices)} rounded to {name}", case.predict(equations=with_weights(case.reference, changed))


def with_weights(equations: Equations, changed: Mapping[str, Array]) -> Equations:
    """Equations with some of their weights replaced."""
    return evolve(equations, weights=Over(changed, equations.weights))


ROWS = (
    Hypothesis("tensor", (), _changed),
    Hypothesis("missing-bias", (), _missing),
    Hypothesis("rounded-weights", (), _rounded),
)
