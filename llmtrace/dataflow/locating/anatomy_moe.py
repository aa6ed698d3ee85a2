"""What was found of a mixture of experts."""

from __future__ import annotations

from attrs import frozen

from llmtrace.dataflow.graph import Vertex
from llmtrace.dataflow.locating.anatomy_mlp import Ending, MlpCell
from llmtrace.dataflow.segments import Line, Segment


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
class Mixture:
    """What mixtures of experts have in common, however their experts are computed."""

    norm: Segment | None
    reads: str
    scales: tuple[Segment, ...]
    """Of the experts' sum, before a shared expert's output is added."""
    shared: SharedCell | None
    out: str
    """The sum with that."""
    tail: Ending


@frozen(eq=False)
class MoeCell(Mixture):
    """A mixture of experts."""

    routing: Routing
    lines: tuple[ExpertLine, ...]
    """One (both halves in one), or two."""
    halves: tuple[str, ...]
    """What enters the activation, and the linear half where there is one; in no order."""
    post: str
    """What the last line reads."""
    down: ExpertLine
    entering: str = ""
    """What the experts read, where their weights multiply that; empty where they multiply what the experts make."""


@frozen(eq=False)
class MoeWholeCell(Mixture):
    """A mixture of experts of which one vertex, which was not looked into, does all but the choice."""

    routing: Routing
    vertex: Vertex
    rows: str
    """What the vertex reads of the stream."""
    makes: str


@frozen(eq=False)
class MoeOperatorCell(Mixture):
    """A mixture of experts of which one vertex does all but the router's line."""

    line: Line
    """The router's."""
    vertex: Vertex
    rows: str
    """What the vertex reads of the stream."""
    logits: str
    """What it reads of the router."""
    makes: str
