"""Local errors at the price of float32. **Screening**: equations are applied in float32 first, and what is near its tolerance is judged again in
float64; what was computed in more than float32 is judged in float64 at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from attrs import evolve

from llmtrace.schema.evaluate import Equations, Signals
from llmtrace.schema.precision import ROUNDOFF, Precision
from llmtrace.schema.verify import LocalError, verify

NEAR, FAR = 0.3, 100.0
"""Shares of its tolerance between which a site in float32 is judged again: float32 itself takes less than the one, and no judgement can
change beyond the other."""
SINGLE = ROUNDOFF["float32"]


class Judge:
    """Holds captured signals to some equations."""

    def __init__(self, equations: Equations, precision: Mapping[str, Precision], *, felt: bool = True) -> None:
        """`precision` is that of the captured signals, by site; `felt` as in `verify`."""
        self._felt = felt
        self._exact = equations
        self._quick = evolve(equations, dtype=np.float32)
        self._precision = precision

    def __call__(self, captured: Signals, wanted: Collection[str]) -> dict[str, LocalError]:
        """The local errors of the wanted sites, by site. Raises `SchemaViolationError` for weights of other shapes than the spec's."""
        fine = [site for site in wanted if self._precision[site].accumulation_roundoff < SINGLE]
        first = self._by(self._quick, captured, [site for site in wanted if site not in fine])
        return first | self._by(self._exact, captured, [*fine, *filter(lambda site: self._near(first[site]), first)])

    def _by(self, equations: Equations, captured: Signals, wanted: Collection[str]) -> dict[str, LocalError]:
        return (
            {each.site: each for each in verify(equations, captured, self._precision, wanted, felt=self._felt)}
            if wanted
            else {}
        )

    def _near(self, error: LocalError) -> bool:
        if error.status not in ("holds", "violated") or coarse(self._precision[error.site]):
            return False
        size = max(error.relative_error, error.worst_token_error / 2)
        return NEAR * error.tolerance < size < FAR * error.tolerance


def coarse(precision: Precision) -> bool:
    """Whether signals are held, or multiplied, in less than float32."""
    return max(precision.storage_roundoff, precision.operand_roundoff) > SINGLE
