"""What was found of an attention branch."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from llmtrace.dataflow.graph import Vertex
from llmtrace.dataflow.locating.anatomy_mlp import Tail
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
    """An attention branch. Three stretches of it, before heads meet, before the last matrix and after it, are known or not, each by itself."""

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
    why_heads: str = ""
    """Why it is not known how q, k and v are made, where it is not: of none of the three."""
    why_mixture: str = ""
    """Why it is not known what becomes of the mixture before the last matrix, where it is not."""
    why_tail: str = ""
    """Why it is not known what stands between the last matrix and the contribution, where it is not."""

    @property
    def ways(self) -> Mapping[str, Projection]:
        """q, k and v by name; nothing where it is not known how they are made."""
        ways = {"q": self.q, "k": self.k, "v": self.v}
        return {name: way for name, way in ways.items() if way is not None}
