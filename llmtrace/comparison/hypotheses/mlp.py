"""MLPs: another activation, the halves of a gate swapped, bounds that are missing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from attrs import evolve

from llmtrace.comparison.case import Case, Hypothesis
from llmtrace.schema.functions import ACTIVATIONS
from llmtrace.schema.sites import Array
from llmtrace.spec import GatedMlp, Mlp


def _activation(case: Case) -> Iterator[tuple[str, Array]]:
    mlp = case.step.record
    if not isinstance(mlp, Mlp | GatedMlp):
        return
    for act in ACTIVATIONS:
        if act != mlp.act:
            yield f"activation {act} instead of {mlp.act}", case.predict(case.with_record(mlp, evolve(mlp, act=act)))


def _halves(case: Case) -> Iterator[tuple[str, Array]]:
    if not isinstance(case.step.record, GatedMlp):
        return
    pre, linear = (case.step.signals.get(name, "") for name in ("pre", "pre_linear"))
    if pre in case.captured and linear in case.captured:
        put = {pre: np.asarray(case.captured[linear]), linear: np.asarray(case.captured[pre])}
        yield "the activation is applied to the linear half", case.predict(put=put)
        yield "the product with the linear half is missing", case.predict(put={linear: np.ones_like(put[pre])})


def _clamp(case: Case) -> Iterator[tuple[str, Array]]:
    mlp = case.step.record
    if isinstance(mlp, GatedMlp) and mlp.clamp is not None:
        yield "the clamp is missing", case.predict(case.with_record(mlp, evolve(mlp, clamp=None)))
        bare = evolve(mlp.clamp, offset=0.0)
        yield "the clamp's offset is missing", case.predict(case.with_record(mlp, evolve(mlp, clamp=bare)))


ROWS = (
    Hypothesis("activation", ("mlp.post",), _activation),
    Hypothesis("halves-of-the-gate", ("mlp.post",), _halves),
    Hypothesis("clamp", ("mlp.post",), _clamp),
)
