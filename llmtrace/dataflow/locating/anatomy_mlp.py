"""What was found of an MLP, and from where on branches are alike: their **ending**, a norm and factors before they are added to the stream."""

from __future__ import annotations

from attrs import frozen

from llmtrace.dataflow.segments import Line, Segment


@frozen(eq=False)
class Ending:
    """From a branch's own output to what it adds to the stream."""

    post: Segment | None
    """A norm."""
    scales: tuple[Segment, ...]
    ends: str
    """The contribution."""


@frozen(eq=False)
class Tail(Ending):
    """The same, of a branch that ends in one line."""

    line: Line


@frozen(eq=False)
class MlpCell:
    """A plain or gated MLP."""

    norm: Segment | None
    reads: str
    lines: tuple[Line, ...]
    """One (plain, or both halves in one), or two."""
    halves: tuple[str, ...]
    """What enters the activation, and the linear half where there is one; in no order."""
    post: str
    """What the last line reads, before a norm of it."""
    tail: Tail
    inner_norm: Segment | None = None
    """A norm of what the last line reads."""
