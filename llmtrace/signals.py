"""**Signal**: the array at one site, with its axes, its precision and its provenance. **Provenance**: where its values come from."""

from __future__ import annotations

import math
from typing import Any, Literal, Protocol

import numpy as np
from attrs import field, frozen

from llmtrace.schema.precision import Precision
from llmtrace.schema.sites import Array
from llmtrace.selection import Cut


@frozen
class Provenance:
    """Where a signal's values come from."""

    kind: Literal["captured", "converted", "derived"]
    """As the runtime had it · captured, then re-expressed exactly · computed by an equation."""
    detail: str = ""
    """The recipe of a conversion."""
    inputs: tuple[str, ...] = ()
    """The captured signals that a derived one rests on."""

    def __str__(self) -> str:
        """`derived(blocks.0.attn.rot_q, blocks.0.attn.rot_k)`"""
        inside = ", ".join(self.inputs) or self.detail
        return f"{self.kind}({inside})" if inside else self.kind


CAPTURED = Provenance("captured")
REPLAYED = Provenance("converted", "taken as given, not computed")


class Stored(Protocol):
    """An array that is still in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As the file says."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the file says."""

    def read(self) -> Array:
        """The array, read-only; its digest is checked the first time. Raises `TraceFileError`."""


@frozen(eq=False)
class Signal:
    """The array at one site, with what one needs to know about it."""

    site: str
    """Its name."""
    axes: tuple[str, ...]
    """Names of the array's axes."""
    _array: Array | Stored = field(repr=False)
    """At hand, or in a file from which it is read when `array` is first asked for."""
    provenance: Provenance = CAPTURED
    """Where the values come from."""
    precision: Precision = Precision()
    """What rounding they have been through."""
    cut: Cut | None = None
    """What of the whole signal this is; None: all of it."""

    @property
    def array(self) -> Array:
        """Read-only; axes as named, cut as selected."""
        return self._array if isinstance(self._array, np.ndarray) else self._array.read()

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes. Nothing is read to know it."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements. Nothing is read to know it."""
        return self._array.dtype

    @property
    def whole(self) -> bool:
        """Whether nothing was cut away."""
        return self.cut is None or self.cut.whole

    @property
    def bytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def part(self) -> str:
        """What of the whole signal this is, for people: `heads 1, tokens 4`; empty for all of it."""
        return "" if self.cut is None else self.cut.words(self.axes)

    def __array__(self, dtype: np.dtype[Any] | None = None, copy: bool | None = None) -> Array:
        """The array, for `np.asarray(signal)`; NumPy's own rules for `dtype` and `copy`."""
        return np.array(self.array, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        """Everything but the numbers."""
        axes = " ".join(f"{axis}={size}" for axis, size in zip(self.axes, self.shape, strict=True))
        return f"<Signal {self.site} [{axes}] {self.dtype} {self.provenance}>"

    def _repr_html_(self) -> str:
        """The same for notebooks, as a table of one row."""
        from llmtrace.view.notebook import signal_fragment

        return signal_fragment(self)
