"""Products with the matrices of experts: of those that were chosen, looked up, or of all of them, one above the other in a constant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmtrace.dataflow.graph import LENGTHS, Flow, Vertex
from llmtrace.dataflow.locating.anatomy_moe import ExpertLine
from llmtrace.dataflow.segments import SUMS, Line, line, moved_from, with_bias

GATHERS = frozenset({"Gather", "GatherND"})
"""Operators that look up the matrices of experts (read first) by number (read second)."""
LAID = frozenset(["Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"])
"""Operators that keep the order of all numbers."""


def expert_lines(flow: Flow, reads: str, branch: str, router: Line, index: str = "") -> Iterator[ExpertLine]:
    """The products on the ways from what a mixture reads to what it adds, in order: gathered ones; where there is none, dense ones.

    Without `index`, the experts that were chosen, dense ones only, of what follows from the choice too.
    """
    vertices = list(flow.between(reads, branch))
    gathered = [found for vertex in vertices if index and (found := _gathered(flow, vertex, index)) is not None]
    yield from gathered
    if gathered:
        return
    for vertex in vertices:
        one = line(flow, vertex)
        if one is not None and vertex is not router.product and not (index and flow.follows(one.reads, index)):
            one = with_bias(flow, one)
            yield ExpertLine(vertex, 1, None, one.reads, one.makes, one.bias)


def looked_up(flow: Flow, vertices: Sequence[Vertex]) -> str:
    """The content by which matrices are looked up that content is multiplied by; empty where none are."""
    for vertex in vertices:
        if vertex.op in GATHERS and vertex.reads[0] in flow.graph.constants and vertex.reading(1) in flow:
            readers = [each for each in vertices if each.op == "MatMul" and len(flow.reads(each)) == 2]
            if any(_look_up(flow, name, vertex.reads[1]) is vertex for each in readers for name in each.reads):
                return moved_from(flow, vertex.reads[1])
    return ""


def is_kept(vertex: Vertex) -> bool:
    """Whether a vertex only re-arranges, and keeps each row together."""
    return vertex.op in LAID or vertex.op == "Transpose"


def _gathered(flow: Flow, vertex: Vertex, index: str) -> ExpertLine | None:
    """A product of content with matrices that were looked up by the choice."""
    if vertex.op != "MatMul":
        return None
    found = [_look_up(flow, name, index) for name in vertex.reads]
    if (found[0] is None) == (found[1] is None):
        return None
    place = 0 if found[0] is not None else 1
    makes, bias = _with_bias(flow, vertex.makes[0], index)
    return ExpertLine(vertex, place, found[place], vertex.reads[1 - place], makes, bias)


def _look_up(flow: Flow, name: str, index: str) -> Vertex | None:
    """Where a value was looked up in a constant by the choice, perhaps transposed since."""
    while (vertex := flow.graph.maker.get(name)) is not None:
        if vertex.op in GATHERS and vertex.reads[0] in flow.graph.constants and flow.follows(vertex.reads[1], index):
            return vertex
        if vertex.op not in ("Transpose", "Cast", "Identity"):
            return None
        name = vertex.reads[0]
    return None


def _with_bias(flow: Flow, name: str, index: str) -> tuple[str, str]:
    """A product laid as rows, with the bias of its experts, and the constant that this is a part of."""
    name = settled(flow, name)
    readers = _readers(flow, name)
    if len(readers) == 1 and readers[0].op in SUMS and len(readers[0].reads) == 2:
        (other,) = (each for each in readers[0].reads if each != name)
        found = _look_up(flow, other, index)
        if found is not None:
            return settled(flow, readers[0].makes[0]), found.reads[0]
    return name, ""


def settled(flow: Flow, name: str) -> str:
    """On to where something is done to a value, or several things."""
    while len(readers := _readers(flow, name)) == 1 and readers[0].op in LAID:
        name = readers[0].makes[0]
    return name


def _readers(flow: Flow, name: str) -> list[Vertex]:
    """What reads a value, and not its shape alone."""
    return [vertex for vertex in flow.graph.readers.get(name, []) if vertex.op not in LENGTHS]
