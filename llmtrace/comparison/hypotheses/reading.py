"""Another signal of the residual stream is read than the equation says: a norm that is skipped, the stream of before or after a branch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from llmtrace.comparison.case import Case, Hypothesis
from llmtrace.schema.sites import Array

STREAM = ("token", "d_model")


def _other(case: Case) -> Iterator[tuple[str, Array]]:
    """Each captured signal of the width of the model that comes before the site, the nearest first, in the place of the one that is read."""
    steps = case.reference.steps
    before = list(steps)[: list(steps).index(case.site)]
    known = [name for name in before if name in case.captured and steps[name].axes == STREAM]
    read = [name for name in case.base.span(case.site, case.captured).known if name in known]
    if len(read) != 1:
        return
    for name in reversed(known):
        if name != read[0]:
            yield f"{name} is read instead of {read[0]}", case.predict(put={read[0]: np.asarray(case.captured[name])})


ROWS = (Hypothesis("another-input", (), _other),)
