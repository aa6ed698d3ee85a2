"""How finely a capture is rounded. **Storage**: the type in which a signal was handed on; **accumulation**: that of its sums."""

from __future__ import annotations

from attrs import field, frozen, validators

ROUNDOFF: dict[str, float] = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "tf32": 2.0**-11,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}
"""Unit round-off by type name: half the distance from 1 to the next number."""

BYTES: dict[str, int] = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2, "uint8": 1}
"""Bytes an element, of every type that a signal may have."""


@frozen
class Precision:
    """What rounding a signal has been through, as far as the backend knows."""

    storage: str = field(default="float32", validator=validators.in_(BYTES))
    """Type of the values as the runtime held them."""
    accumulation: str = field(default="float32", validator=validators.in_(ROUNDOFF))
    """Type in which products were summed."""
    functions: str = ""
    """The table where a runtime approximates a function, e.g. ggml's half-precision GELU; empty where it computes it."""

    @property
    def storage_roundoff(self) -> float:
        """Unit round-off of the storage type; integers are exact."""
        return ROUNDOFF.get(self.storage, 0.0)

    @property
    def accumulation_roundoff(self) -> float:
        """Unit round-off of the accumulation type."""
        return ROUNDOFF[self.accumulation]
