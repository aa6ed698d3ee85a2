"""Ways through the graph, cut where everything passes. **Segment**: what lies between two neighbouring values of a chain, and of which
kind it is:

`move` (re-arranged, not changed) · `line` (times a constant matrix, plus a bias) · `norm` (by a mean over channels, times a weight, plus a
bias) · `scale` (times one number) · `add` (plus what is no content) · `join` (a sum of content) · `rotary` (with tables of positions) ·
`point` (an activation, a cap, a clip) · `gate` (times content from elsewhere) · `other`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from attrs import evolve, frozen

from llmtrace.dataflow.graph import Flow, Vertex

MOVES = frozenset(
    [
        "Identity",
        "Cast",
        "CastLike",
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Dropout",
        "Expand",
        "Slice",
        "Split",
        "Gather",
        "Concat",
        "Tile",
        "ScatterND",
        "TensorScatter",
        "GatherND",
    ]
)
PRODUCTS = frozenset(["MatMul", "Gemm", "MatMulNBits", "FusedMatMul", "TransposeMatMul"])
NORMS = frozenset({"LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization"})
REDUCTIONS = frozenset(["ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "GlobalAveragePool"])
SUMS = frozenset({"Add", "Sum"})
WHOLE = "Module"
"""What a vertex is called that is a part of a model which was not looked into."""
FACTORS = frozenset({"Mul", "Div"})
COMPLEX, REAL = "view_as_complex", "view_as_real"
"""Operators that take pairs of channels for complex numbers, and back."""
BIAS = {"Gemm": 2, "MatMulNBits": 5}
"""Where a product reads its own bias."""


@frozen(eq=False)
class Segment:
    """Between two values through which all goes."""

    kind: str
    first: str
    last: str
    vertices: tuple[Vertex, ...]

    @property
    def ops(self) -> frozenset[str]:
        """The operators in it."""
        return frozenset(vertex.op for vertex in self.vertices)


@frozen(eq=False)
class Line:
    """A product with a constant matrix, and its bias."""

    product: Vertex
    reads: str
    """The content that is multiplied."""
    makes: str
    """With the bias."""
    bias: str = ""
    """A constant; empty where there is none."""


def segments(flow: Flow, first: str, last: str) -> tuple[Segment, ...]:
    """The segments from one value to another; what belongs to one norm or one line is one segment."""
    found: list[Segment] = []
    for here, there in pairwise(flow.chain(first, last)):
        vertices = tuple(flow.between(here, there))
        one = Segment(kind_of(flow, vertices), here, there, vertices)
        joined = found and _joined(flow, found, one)
        if joined:
            found = [*found[: joined[0]], joined[1]]
        else:
            found.append(one)
    return tuple(found)


def _joined(flow: Flow, found: list[Segment], one: Segment) -> tuple[int, Segment] | None:
    """A norm goes on with the next mean, its weight and its bias; a line with its bias; what is turned as complex numbers until it is real again:
    from which segment on, and what it becomes.
    """
    if one.ops == {REAL}:
        begun = [at for at, each in enumerate(found) if each.ops == {COMPLEX}]
        if begun:
            vertices = tuple(vertex for each in (*found[begun[-1] :], one) for vertex in each.vertices)
            return begun[-1], Segment("rotary", found[begun[-1]].first, one.last, vertices)
    place = _back(found, "line", {"Reshape"})
    joins = place >= 0 and one.kind == "add" and bool(_constant(flow, one)) and not line_of(flow, found[place]).bias
    if not joins:
        place = _back(found, "norm", {"Cast", "Identity"})
        joins = place >= 0 and (one.kind == "norm" or (one.kind in ("scale", "add") and bool(_constant(flow, one))))
    if not joins:
        return None
    vertices = tuple(vertex for each in found[place:] for vertex in each.vertices) + one.vertices
    return place, evolve(found[place], last=one.last, vertices=vertices)


def _back(found: list[Segment], kind: str, moves: set[str]) -> int:
    """The place of the last segment but for some that only move, if it is of a kind; else -1."""
    place = len(found) - 1
    while place > 0 and found[place].kind == "move" and found[place].ops <= moves:
        place -= 1
    return place if found[place].kind == kind else -1


def kind_of(flow: Flow, vertices: tuple[Vertex, ...]) -> str:
    """What lies between two values, of which kind it is."""
    ops = {vertex.op for vertex in vertices}
    if len(vertices) == 1:
        return _single(flow, vertices[0])
    if WHOLE in ops or any(line(flow, vertex) for vertex in vertices):
        return "other"
    if ops & (REDUCTIONS | NORMS):
        return "norm"
    if ops <= MOVES:
        return "move"
    if any(vertex.op in FACTORS and _tables(flow, vertex) for vertex in vertices) or "RotaryEmbedding" in ops:
        return "rotary"
    return "point" if all(len(set(flow.reads(vertex))) <= 2 for vertex in vertices) else "other"


def _single(flow: Flow, vertex: Vertex) -> str:
    content, op = flow.reads(vertex), vertex.op
    others = [name for name in vertex.reads if name and name not in flow]
    if op in NORMS or op in REDUCTIONS:
        return "norm"
    if op == "RotaryEmbedding":
        return "rotary"
    if op == WHOLE:
        return "other"
    if op in SUMS:
        return "join" if len(content) > 1 else "add"
    if op in PRODUCTS:
        return "line" if line(flow, vertex) else "other"
    if len(set(content)) > 1:
        return "gate" if op == "Mul" else "other"
    if op in FACTORS and others and content[0] == vertex.reads[0 if op == "Div" else vertex.reads.index(content[0])]:
        return "scale"
    if op == "Sub" and others:
        return "add"
    return "move" if op in MOVES else "point"


def _tables(flow: Flow, vertex: Vertex) -> bool:
    """Whether content is multiplied by an array that is none: not by one number."""
    return bool(flow.reads(vertex)) and any(
        name and name not in flow and not flow.graph.is_number(name) for name in vertex.reads
    )


def _constant(flow: Flow, one: Segment) -> str:
    """The constant that a segment of one vertex reads, spread or not; empty if it is a number, or no constant."""
    read = (_before_spread(flow, name) for name in one.vertices[0].reads)
    return next((name for name in read if name in flow.graph.constants and _wide(flow, name)), "")


def _before_spread(flow: Flow, name: str) -> str:
    """A constant that is spread to the prompt's length, as it was before; another value as it is."""
    vertex = flow.graph.maker.get(name)
    return vertex.reads[0] if vertex is not None and vertex.op == "Expand" and name not in flow else name


def _wide(flow: Flow, name: str) -> bool:
    return not flow.graph.is_number(name)


def line(flow: Flow, vertex: Vertex) -> Line | None:
    """The line that a vertex makes, if it multiplies content by a constant."""
    if vertex.op not in PRODUCTS or vertex.reading(0) not in flow or len(flow.reads(vertex)) != 1:
        return None
    if vertex.reading(1) not in flow.graph.constants:
        return None
    return Line(vertex, vertex.reads[0], vertex.makes[0], vertex.reading(BIAS.get(vertex.op, len(vertex.reads))))


def line_of(flow: Flow, segment: Segment) -> Line:
    """The line of a segment of that kind."""
    found = line(flow, segment.vertices[0])
    if found is None:
        raise ValueError("no line")  # a segment is of this kind because it has one
    added = (_constant(flow, evolve(segment, vertices=(each,))) for each in segment.vertices[1:])
    return evolve(found, makes=segment.last, bias=found.bias or next(filter(None, added), ""))


def lines_between(flow: Flow, first: str, last: str) -> Iterator[Line]:
    """All lines on the ways from one value to another, in order; each with the bias that is added at once."""
    for vertex in flow.between(first, last):
        one = line(flow, vertex)
        if one is not None:
            yield with_bias(flow, one)


def with_bias(flow: Flow, one: Line) -> Line:
    """A line with the bias that the only reader of its product adds."""
    readers = flow.graph.readers.get(one.makes, [])
    if one.bias or len(readers) != 1 or readers[0].op not in SUMS:
        return one
    bias = [name for name in readers[0].reads if name in flow.graph.constants and _wide(flow, name)]
    return evolve(one, makes=readers[0].makes[0], bias=bias[0]) if bias and len(readers[0].reads) == 2 else one


def moved_from(flow: Flow, name: str) -> str:
    """Back through what only re-arranges."""
    while (vertex := flow.graph.maker.get(name)) is not None and vertex.op in MOVES:
        content = set(flow.reads(vertex))
        if len(content) != 1:
            break
        (name,) = content
    return name
