"""What was found of one type."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Status = Literal["measured", "refused", "not built", "not counted", "stopped"]


@frozen
class Outcome:
    """One row of the page."""

    kind: str
    status: Status
    """`refused`: it does not open; `not built`: there is no tiny model; `stopped`: it took too long, too much memory, or the process died."""
    kernels: tuple[str, ...] = ()
    """Kernels of attention that it was opened with, transformers' own choice first."""
    experts: str = ""
    """Kernel of its experts, where there are any."""
    layers: int = 0
    """As transformers counts them."""
    attentions: int = 0
    """Softmaxes over the prompt that eager attention runs."""
    structural: bool = False
    full: bool = False
    aside: bool = False
    """Full, but for mixers, which are opaque by design: nothing else is opaque, missing or off."""
    captured: int = 0
    """Sites handed out with the first kernel."""
    derived: int = 0
    """Sites derived from them."""
    unfiled: tuple[str, ...] = ()
    """Weights that are read from the model's memory and not from its file, with `L` for their block: transformers renames or joins them on loading."""
    why: tuple[str, ...] = ()
    """What is not there or not equal, and why."""

    @property
    def counts(self) -> bool:
        """Whether it is a decoder, as far as is known."""
        return self.status != "not counted"
