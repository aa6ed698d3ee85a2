"""Positions: counted from another place."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from llmtrace.comparison.case import Case, Hypothesis
from llmtrace.schema.sites import Array

OFFSETS = (1, -1, 2, -2)


def _turned(case: Case) -> Iterator[tuple[str, Array]]:
    positions = np.asarray(case.captured["positions"])
    for offset in OFFSETS:
        yield f"positions counted from {offset} instead of 0", case.predict(put={"positions": positions + offset})


def _looked_up(case: Case) -> Iterator[tuple[str, Array]]:
    positions = np.asarray(case.captured["positions"])
    rows = case.step.sizes["position"] - case.step.record.offset
    for offset in OFFSETS:
        moved = positions + offset
        if moved.max() < rows and moved.min() + case.step.record.offset >= 0:
            yield f"the position table is read {offset:+d} rows away", case.predict(put={"positions": moved})


ROWS = (
    Hypothesis("positions-off", ("attn.rot_q", "attn.rot_k"), _turned, harmless=True),
    Hypothesis("position-table-off", ("pos_embed",), _looked_up),
)
"""Scores depend on distances, so turned positions change nothing downstream in the same run."""
