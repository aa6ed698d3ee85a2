"""Norms: of the stream, of a module's output, of q, k, v or z."""

from __future__ import annotations

from attrs import frozen


@frozen
class Norm:
    """Divide by a root mean square; `centred` subtracts the mean first (layer norm). Weights are as multiplied: never `w - 1`."""

    eps: float
    """Added to the mean square, under the root."""
    centred: bool = False
    """Subtract the mean first: layer norm."""
    over: str = "d_model"
    """The axes of the mean and of the weight: `d_head` is per head, `head d_head` the whole width."""
    weight: bool = True
    """Whether a weight multiplies the quotient."""
    bias: bool = False
    """Whether a bias is added after it."""
    each: str = ""
    """Axes of the weight before `over`: `head` is a weight of its own for every head."""
