"""The settings of the reference backend."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import in_

DTYPES = ("float64", "float32")


@frozen
class ReferenceOptions:
    """What the equations compute in. Both presets are float64."""

    dtype: str = field(default="float64", validator=in_(DTYPES))
    """`float64`, or `float32` to see what single precision alone changes."""
