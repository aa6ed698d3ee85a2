"""Rotary position embedding. **Scaling**: how its frequencies are changed for prompts longer than those of the training."""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import frozen


@frozen
class Linear:
    """Rotary angles divided by `factor` (position interpolation, arXiv 2306.15595)."""

    factor: float
    """What positions are divided by."""


@frozen
class DynamicNtk:
    """A rotary base that grows once the prompt is longer than `context` (NTK-aware, as in transformers' `dynamic`)."""

    factor: float
    """How much longer the prompt may become."""
    context: int
    """Positions that the model was trained on."""


@frozen
class Yarn:
    """Frequencies stretched by `factor` where they turn less than `slow` times in `context` (arXiv 2309.00071, §3.2)."""

    factor: float
    """The stretch."""
    context: int
    """Positions that the model was trained on."""
    fast: float = 32.0
    """Turns in the context above which a pair is not stretched."""
    slow: float = 1.0
    """Turns below which it is stretched in full."""
    truncate: bool = True
    """Whether the bounds between them are rounded to whole pairs."""
    gain: float | None = None
    """Multiplies the rotated channels; None: `0.1 ln(factor) + 1` (eq. 22)."""


@frozen
class Llama3:
    """Llama 3.1's stretch: wavelengths over `context / low` by `factor`, under `context / high` not, in between smoothly."""

    factor: float
    """The stretch of long wavelengths."""
    low: float
    """Turns in the context below which a pair is stretched in full."""
    high: float
    """Turns above which it is not stretched."""
    context: int
    """Positions that the model was trained on."""


@frozen
class LongRope:
    """One stretch a frequency, `short` up to `context` and `long` beyond it (arXiv 2402.13753)."""

    short: tuple[float, ...]
    """Divisors of the frequencies within `context`."""
    long: tuple[float, ...]
    """Divisors beyond it."""
    context: int
    """Positions that the model was trained on."""
    gain: float = 1.0
    """Multiplies the rotated channels."""


Scaling: TypeAlias = Linear | DynamicNtk | Yarn | Llama3 | LongRope


@frozen
class Rotary:
    """Rotary position embedding of `width` channels of every head, the leading ones unless it says so (arXiv 2104.09864, §3.2)."""

    theta: float
    """The base of the frequencies."""
    width: int
    """Channels that are turned; even."""
    layout: Literal["half", "interleaved"] = "half"
    """Channel i is paired with i + width/2 (`half`) or 2i with 2i + 1 (`interleaved`)."""
    scaling: Scaling | None = None
    """How the frequencies are changed for long prompts."""
    start: int = 0
    """The first channel that is turned."""
    backwards: bool = False
    """Pairs turn from the second channel to the first."""
