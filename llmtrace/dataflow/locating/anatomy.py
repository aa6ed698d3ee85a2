"""What was found in a graph, as values and vertices of it: no numbers yet. **Cell**: one branch of a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from attrs import field, frozen

from llmtrace.dataflow.graph import Vertex
from llmtrace.dataflow.segments import Line, Segment


@frozen(eq=False)
class Projection:
    """The way of q, k or v, from its line to where heads meet."""

    line: Line
    begins: str
    """What the line makes, after a factor on it."""
    split: str
    """That, re-arranged into heads; of a line that makes several, the part that is this one's."""
    clip: Segment | None
    norm: Segment | None
    """A norm of q or k."""
    turn: Segment | None
    """The rotary embedding."""
    turned: str
    """After both: `rot_q`, `rot_k`; of v, what is mixed, before heads are repeated."""
    meets: str
    """What the product, the mixture or a fused vertex reads."""
    late: bool = False
    """The norm comes after the rotary embedding."""
    scaled: Segment | None = None
    """A factor on v after it is split into heads; one on q or k is the scores'."""


@frozen(eq=False)
class Met:
    """What stands for `rot_q`, `rot_k` or v, however it was made."""

    name: str
    """`q`, `k`, `v`."""
    heads: str
    """Before heads are repeated or moved."""
    meets: str
    """What the product, the mixture or a fused vertex reads."""


@frozen(eq=False)
class LatentCell:
    """From what a branch reads to what q, or k and v, are projected from."""

    line: Line
    first: str
    """The latent: what the line makes, or a part of it."""
    norm: Segment | None
    up: Line
    """What projects it."""


@frozen(eq=False)
class LatentWays:
    """q, k and v, made of latents."""

    q: LatentCell | None
    q_line: Line
    """What makes q, of its latent or of what the branch reads."""
    kv: LatentCell


@frozen(eq=False)
class Core:
    """Where heads look at each other."""

    vertex: Vertex
    """The softmax, or a vertex that does it all."""
    scores: str
    """What enters the softmax; empty where one vertex does it all."""
    pattern: str
    z: str
    """The mixture."""
    computed: str = ""
    """The scores in the type that they were computed in: it says how they are rounded."""
    masks: str = ""
    """What is added to scores and follows from what the tokens are; empty where nothing is."""
    selects: str = ""
    """Which keys a query may see, where what the tokens are decides that; empty where only their positions do."""

    @property
    def fused(self) -> bool:
        """Whether one vertex does it all."""
        return not self.pattern


@frozen(eq=False)
class Tail:
    """From a branch's last line to what it adds to the stream."""

    line: Line
    post: Segment | None
    scales: tuple[Segment, ...]
    ends: str
    """The contribution."""
    why: str = ""
    """Why it is not known what stands between the line and the contribution, where it is not."""


@frozen(eq=False)
class GateCell:
    """What multiplies the mixture."""

    line: Line
    enters: str
    """What its activation reads; where there is none, what multiplies."""
    factor: str
    """What its activation makes."""
    product: Segment
    bias: Segment | None = None
    """A constant that is added before the activation."""


@frozen(eq=False)
class AttentionCell:
    """An attention branch."""

    norm: Segment | None
    """Between the stream and what q, k and v read."""
    reads: str
    """What q, k and v read."""
    q: Projection | None
    k: Projection | None
    v: Projection | None
    latent: LatentWays | None
    """The three where they are made of latents."""
    met: tuple[Met, ...]
    """The three as they meet."""
    core: Core
    z_norm: Segment | None
    gate: GateCell | None
    tail: Tail
    kept: str = ""
    """What multiplies the mixture and follows from its scores: what sinks leave of it; empty where nothing does."""
    post: str = ""
    """Why it is not known what becomes of the mixture before the last matrix, where it is not."""
    why: str = ""
    """Why it is not known how q, k and v are made, where it is not: of none of the three."""

    @property
    def ways(self) -> Mapping[str, Projection]:
        """q, k and v by name; nothing where it is not known how they are made."""
        ways = {"q": self.q, "k": self.k, "v": self.v}
        return {name: way for name, way in ways.items() if way is not None}


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


@frozen(eq=False)
class ExpertLine:
    """A product with the matrices of experts, and their biases."""

    product: Vertex
    place: int
    """Which of the product's two factors the matrices are."""
    gather: Vertex | None
    """What looks up the matrices of the experts that were chosen; None where every expert computes every token."""
    reads: str
    """The content that is multiplied."""
    makes: str
    """With the bias."""
    bias: str = ""
    """A constant, a row for each expert; empty where there is none."""


@frozen(eq=False)
class Routing:
    """From a router's logits to the experts that are chosen, and their weights."""

    line: Line
    choice: Vertex | None
    """What picks the largest; None where no one operator does."""
    ranked: str
    """What it picks them of."""
    best: str
    """The largest; empty where no one operator picks them."""
    index: str
    """Where they were: the experts."""
    weights: str
    """What the outputs or inputs of the chosen experts are multiplied by."""
    passes: tuple[str, ...]
    """What stands between the logits and what is picked from: the coarsest of them decides how well experts are told apart."""
    spread: bool = False
    """Weights are of all experts, and nought for those not chosen."""


@frozen(eq=False)
class SharedCell:
    """An expert that every token takes."""

    mlp: MlpCell
    mix: Line | None
    """The line of the factor that multiplies its output, where there is one."""
    factor: str
    ends: str
    """What it adds to the others."""


@frozen(eq=False)
class Ending:
    """From a branch's own output to what it adds to the stream."""

    post: Segment | None
    scales: tuple[Segment, ...]
    ends: str
    """The contribution."""


@frozen(eq=False)
class MoeCell:
    """A mixture of experts."""

    norm: Segment | None
    reads: str
    routing: Routing
    lines: tuple[ExpertLine, ...]
    """One (both halves in one), or two."""
    halves: tuple[str, ...]
    """What enters the activation, and the linear half where there is one; in no order."""
    post: str
    """What the last line reads."""
    down: ExpertLine
    scales: tuple[Segment, ...]
    """Of the experts' sum, before a shared expert's output is added."""
    shared: SharedCell | None
    out: str
    tail: Ending
    entering: str = ""
    """What the experts read, where their weights multiply that; empty where they multiply what the experts make."""


@frozen(eq=False)
class MoeWholeCell:
    """A mixture of experts of which one vertex, which was not looked into, does all but the choice."""

    norm: Segment | None
    reads: str
    routing: Routing
    vertex: Vertex
    rows: str
    """What the vertex reads of the stream."""
    makes: str
    scales: tuple[Segment, ...]
    """Of the experts' sum, before a shared expert's output is added."""
    shared: SharedCell | None
    out: str
    tail: Ending


@frozen(eq=False)
class MoeOperatorCell:
    """A mixture of experts of which one vertex does all but the router's line."""

    norm: Segment | None
    reads: str
    line: Line
    """The router's."""
    vertex: Vertex
    rows: str
    """What the vertex reads of the stream."""
    logits: str
    """What it reads of the router."""
    makes: str
    scales: tuple[Segment, ...]
    """Of the experts' sum, before a shared expert's output is added."""
    shared: SharedCell | None
    out: str
    tail: Ending


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


Cell: TypeAlias = AttentionCell | MlpCell | MoeCell | MoeWholeCell | MoeOperatorCell | Opaque


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
