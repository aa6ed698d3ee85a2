"""Explanations of a divergent site, one file for each part of a model. They are tried in this order; the first that brings the error back
to what rounding explains, by the least, is the cause.
"""

from __future__ import annotations

from llmtrace.comparison.case import Hypothesis
from llmtrace.comparison.hypotheses import (
    attention,
    ends,
    experts,
    lost,
    mlp,
    norms,
    own,
    positions,
    reading,
    rotary,
    rounding,
    stream,
    tensors,
)

HYPOTHESES: tuple[Hypothesis, ...] = (
    *own.ROWS, *tensors.ROWS, *rotary.ROWS, *positions.ROWS, *norms.ROWS, *attention.ROWS, *mlp.ROWS, *experts.ROWS, *stream.ROWS,
    *ends.ROWS, *lost.ROWS, *reading.ROWS, *rounding.ROWS,
)  # fmt: skip
"""What the core tries; plugins bring more (`llmtrace_hypotheses`)."""
