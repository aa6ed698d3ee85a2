"""Part of a signal is not there: a head, a channel or an expert that is zero for every token, or all that is beyond a bound."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from llmtrace.comparison.case import Case, Hypothesis
from llmtrace.schema.sites import Array

RUNNING = ("token", "query", "key")
"""Axes that are as long as the prompt."""
SEVERAL, NEAR = 3, 4
"""Numbers that stand at a bound at least, where there is one; times what rounding explains that they may be from it."""


def _zero(case: Case) -> Iterator[tuple[str, Array]]:
    for axis, name in enumerate(case.step.axes):
        others = tuple(other for other in range(case.found.ndim) if other != axis)
        gone = np.nonzero(~case.found.any(others) & case.expected.any(others))[0]
        if name in RUNNING or not 0 < len(gone) < case.found.shape[axis]:
            continue
        without = case.expected.copy()
        without[(slice(None),) * axis + (gone,)] = 0
        yield f"{name} {', '.join(map(str, gone.tolist()[:8]))} is all zero", without


def bounded(case: Case, x: Array, bound: float) -> bool:
    """Whether several numbers are as far from zero as any may be: the largest of a signal alone is no bound."""
    size = math.sqrt(float((case.found.astype(np.float64)[np.isfinite(case.found)] ** 2).mean()))
    return int((np.abs(x) >= bound - NEAR * case.tolerance * size).sum()) >= SEVERAL


def _clipped(case: Case) -> Iterator[tuple[str, Array]]:
    seen = case.found[np.isfinite(case.found)]
    if seen.size and "key" not in case.step.axes:
        bound = float(np.abs(seen).max())
        if bounded(case, case.found, bound):
            yield f"clipped at ±{bound:.4g}", np.clip(case.expected, -bound, bound)


ROWS = (Hypothesis("zero-part", (), _zero), Hypothesis("bound", (), _clipped))
