"""What was found in a graph, as values and vertices of it: no numbers yet. **Cell**: one branch of a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from attrs import field, frozen

from llmtrace.dataflow.graph import Vertex
from llmtrace.dataflow.locating.anatomy_attention import AttentionCell
from llmtrace.dataflow.locating.anatomy_mlp import MlpCell
from llmtrace.dataflow.locating.anatomy_moe import MoeCell, MoeOperatorCell, MoeWholeCell
from llmtrace.dataflow.segments import Line, Segment


@frozen(eq=False)
class Opaque:
    """A branch of which only what it adds is known."""

    name: str
    """`attn` or `mlp`."""
    reads: str
    ends: str
    """What it adds to the stream."""
    why: str
    """Why no more is known."""


Known: TypeAlias = AttentionCell | MlpCell | MoeCell | MoeWholeCell | MoeOperatorCell
Cell: TypeAlias = Known | Opaque


@frozen(eq=False)
class CarryCell:
    """What of the stream goes on at a sum."""

    norm: Segment | None = None
    """That the stream goes through before branches read it."""
    factor: Segment | None = None
    """What multiplies it there, and is added to it, beside the branches."""


@frozen(eq=False)
class BlockCell:
    """One block, and the stream around it."""

    pre: str
    mid: str
    """Empty where there is none."""
    post: str
    cells: tuple[Cell, ...]
    """In the order in which they add to the stream."""
    scales: tuple[Segment, ...] = ()
    """Of the stream, at the block's end."""
    carry_pre: CarryCell = CarryCell()
    """Where the stream begins, of the first block."""
    carry_mid: CarryCell = CarryCell()
    """At the sum that makes `mid`."""
    carry_post: CarryCell = CarryCell()
    """At the sum that makes `post`."""


@frozen(eq=False)
class HeadCell:
    """What stands between the final norm and the unembedding."""

    line: Line
    post: str
    """What its activation makes."""
    norm: Segment | None


@frozen(eq=False)
class Anatomy:
    """The whole decoder."""

    look_up: Vertex
    """Where tokens become rows of a table."""
    row: str
    """Such a row."""
    before: tuple[Segment, ...]
    """Between the row and what enters the stream: scales, a norm."""
    embed: str
    """What enters the stream."""
    pos_embed: str
    """Empty where there is none."""
    blocks: tuple[BlockCell, ...]
    ln_final: Segment | None
    head: Line
    """The unembedding."""
    after: tuple[Segment, ...]
    """Between the unembedding and the logits: scales, a cap."""
    logits: str
    sliced: bool
    """Whether the graph keeps the last position only."""
    entering: tuple[Segment, ...] = ()
    """Scales between the last norm and the unembedding."""
    between: HeadCell | None = None
    """Another matrix before the unembedding."""
    beside: Mapping[int, frozenset[str]] = field(factory=dict)
    """Vertices by index to what they read that comes past the stream, and does not count as content."""
