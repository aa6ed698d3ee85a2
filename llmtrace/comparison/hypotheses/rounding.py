"""Something was computed or kept in half precision where it should not have been: a signal, or what it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from llmtrace.comparison.case import Case, Hypothesis
from llmtrace.schema.sites import Array

TYPES: dict[str, np.dtype[Any]] = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
"""By the name that is told."""


def rounded(x: Array, dtype: np.dtype[Any]) -> Array:
    """The nearest numbers of a smaller type, in float64."""
    found: Array = np.asarray(x).astype(dtype).astype(np.float64)
    return found


def _signal(case: Case) -> Iterator[tuple[str, Array]]:
    for name, dtype in TYPES.items():
        yield f"it is rounded to {name}", rounded(case.expected, dtype)


def _inputs(case: Case) -> Iterator[tuple[str, Array]]:
    """What the site is computed from, all of it."""
    steps = case.reference.steps
    read = [
        name
        for name in case.base.span(case.site, case.captured).known
        if name in steps and not steps[name].equation.integer
    ]
    if not read:
        return
    for name, dtype in TYPES.items():
        put = {each: rounded(case.captured[each], dtype) for each in read}
        yield f"{' and '.join(read)} rounded to {name}", case.predict(put=put)


ROWS = (
    Hypothesis("rounded-signal", (), _signal),
    Hypothesis("rounded-inputs", (), _inputs),
)
