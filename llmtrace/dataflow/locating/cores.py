"""Where heads look at each other: a softmax between two products of content, or one vertex that is all of it; what masks its scores, and sinks."""

from __future__ import annotations

from attrs import frozen

from llmtrace.dataflow.graph import Flow, Vertex
from llmtrace.dataflow.locating.anatomy_attention import Core
from llmtrace.dataflow.segments import moved_from

MIXING = frozenset(["MatMul", "FusedMatMul", "TransposeMatMul", "Einsum", "Gemm"])
"""Operators that multiply content by content."""
MASKING = frozenset({"Add", "Sub", "Where"})
"""Operators that put a mask on scores."""
SCATTERS = frozenset({"ScatterElements", "Scatter"})
FUSED = frozenset({"GroupQueryAttention", "MultiHeadAttention", "Attention"})
"""Operators that are attention."""


@frozen(eq=False)
class Meeting:
    """Where heads look at each other, and what comes together there."""

    core: Core
    operands: tuple[str, str, str]
    """What stands for q, k and v; the last two are empty where one value holds all three."""


def cores(flow: Flow, first: str, last: str) -> list[Meeting]:
    """The places between two values where heads look at each other."""
    found: list[Meeting] = []
    for vertex in flow.between(first, last):
        if vertex.op in FUSED:
            reads = (vertex.reading(0), vertex.reading(1), vertex.reading(2))
            found.append(Meeting(Core(vertex, "", "", vertex.makes[0]), reads))
        elif vertex.op == "Softmax" and (product := _product(flow, first, vertex.reads[0])):
            mixed = _mixture(flow, vertex, last)
            if mixed is not None:
                q, k = flow.reads(product)
                scores = _before_sinks(flow, first, vertex.reads[0])
                pattern = vertex.makes[0] if scores is None else _without_sinks(flow, vertex.makes[0])
                entering = scores or _unshifted(flow, first, vertex.reads[0])
                masks = _masks(flow, product.makes[0], entering)
                core = Core(vertex, entering, pattern, mixed[0].makes[0], _as_computed(flow, entering), *masks)
                found.append(Meeting(core, (q, k, mixed[1])))
    return found


def _before_sinks(flow: Flow, first: str, name: str) -> str | None:
    """The scores to which a column that no token has is appended before the softmax; None where nothing is appended."""
    while (vertex := flow.graph.maker.get(name)) is not None and vertex.op in ("Cast", "Identity", "Sub", "Concat"):
        content = _rests_on(flow, first, vertex)
        if len(content) != 1:
            return None
        (name,) = content
        if vertex.op == "Concat":
            return name if len(vertex.reads) == 2 else None
    return None


def _unshifted(flow: Flow, first: str, name: str) -> str:
    """Scores before the largest of them is taken off, so that nothing overflows."""
    vertex = flow.graph.maker.get(name)
    if (
        vertex is not None
        and vertex.op == "Sub"
        and len(found := _rests_on(flow, first, vertex)) == 1 < len(flow.reads(vertex))
    ):
        return found.pop()
    return name


def _as_computed(flow: Flow, name: str) -> str:
    """A value in the type that it was computed in: graphs in half precision widen scores for the softmax."""
    while (
        (vertex := flow.graph.maker.get(name)) is not None
        and vertex.op in ("Cast", "Identity")
        and vertex.reads[0] in flow
    ):
        name = vertex.reads[0]
    return name


def _without_sinks(flow: Flow, name: str) -> str:
    """The pattern without that column."""
    while len(readers := flow.graph.readers.get(name, [])) == 1 and readers[0].op in (
        "Cast",
        "Identity",
        "Slice",
        "Split",
    ):
        name = readers[0].makes[0]
        if readers[0].op in ("Slice", "Split"):
            break
    return name


def _rests_on(flow: Flow, first: str, vertex: Vertex) -> set[str]:
    """The content that a vertex reads; a largest number of it, taken off so that nothing overflows, is the same."""
    found = set(flow.reads(vertex))
    for name in list(found):
        maker = flow.graph.maker.get(name)
        if maker is not None and maker.op == "ReduceMax" and maker.reads[0] in found:
            found.discard(name)
    if len(found) == 2 and vertex.op in MASKING:
        found -= {name for name in found if _selection(flow, name)}
    if len(found) == 2 and vertex.op in MASKING:
        scored = {name for name in found if _product(flow, first, name) is not None}
        found = scored if len(scored) == 1 else found
    return found


def _selection(flow: Flow, name: str) -> str:
    """The array, scattered from a choice of the largest, that a mask is made of; empty where a value is no such mask."""
    while (vertex := flow.graph.maker.get(name)) is not None:
        content = set(flow.reads(vertex))
        if vertex.op in SCATTERS:
            sources = [flow.graph.maker.get(moved_from(flow, each)) for each in content]
            return name if any(each is not None and each.op == "TopK" for each in sources) else ""
        if len(content) != 1:
            return ""
        (name,) = content
    return ""


def _masks(flow: Flow, product: str, scores: str) -> tuple[str, str]:
    """Of what is content and masks scores: what is added to them as it is, and what `_selection` finds; empty where there is none."""
    masking = [vertex for vertex in flow.between(product, scores) if vertex.op in MASKING]
    read = [name for vertex in masking for name in flow.reads(vertex) if not flow.follows(name, product)]
    chosen = {name: _selection(flow, name) for name in read}
    return next((name for name in read if not chosen[name]), ""), next(filter(None, chosen.values()), "")


def _product(flow: Flow, first: str, name: str) -> Vertex | None:
    """Back from what enters a softmax, through masks, scales and caps, to the product of two values; None where there is none after `first`.

    What lies before that is another branch's: to look there from each sum of the stream would take twice as long with each of them.
    """
    while name != first and flow.follows(name, first):
        vertex = flow.graph.maker[name]
        content = _rests_on(flow, first, vertex)
        if len(content) == 2 and vertex.op in MIXING:
            return vertex
        if len(content) != 1:
            return None
        (name,) = content
    return None


def _mixture(flow: Flow, softmax: Vertex, last: str) -> tuple[Vertex, str] | None:
    """The product of the pattern and of values, and the values."""
    pattern = softmax.makes[0]
    for vertex in flow.between(pattern, last):
        if vertex.op in MIXING:
            others = [name for name in flow.reads(vertex) if not flow.follows(name, pattern)]
            return (vertex, others[0]) if len(others) == 1 else None
    return None
