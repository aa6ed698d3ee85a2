"""The table, one file for each way of planting."""

from __future__ import annotations

from tests.comparison.faults.fault import Fault
from tests.comparison.faults.rows import afterwards, code, config, converters, tensors, tokenizers

FAULTS: tuple[Fault, ...] = (
    *config.ROWS,
    *tensors.ROWS,
    *code.ROWS,
    *converters.ROWS,
    *tokenizers.ROWS,
    *afterwards.ROWS,
)
