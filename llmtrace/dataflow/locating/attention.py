"""An attention branch, from the stream to what it adds: found from the place where heads look at each other outwards.

What does not fit is an `Opaque` cell, with the reason: its contribution is known, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from llmtrace.dataflow.graph import Flow, Vertex
from llmtrace.dataflow.locating.anatomy import (
    AttentionCell,
    Cell,
    Core,
    Ending,
    GateCell,
    Met,
    Opaque,
    Projection,
    Tail,
)
from llmtrace.dataflow.locating.latent import latent_ways, nearest
from llmtrace.dataflow.segments import MOVES, Line, Segment, line_of, moved_from, segments

MIXING = frozenset(["MatMul", "FusedMatMul", "TransposeMatMul", "Einsum", "Gemm"])
"""Operators that multiply content by content."""
PICKS = frozenset({"Slice", "Split", "Gather", "GatherND", "Concat", "ScatterND", "TensorScatter"})
"""Operators that move a part of a value, or put parts together."""
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


class Misfit(Exception):  # noqa: N818  (no error of the user: it becomes an `Opaque` cell)
    """Why a branch is none of the known kind."""


def cores(flow: Flow, first: str, last: str) -> list[Meeting]:
    """The places between two values where heads look at each other."""
    found: list[Meeting] = []
    for vertex in flow.between(first, last):
        if vertex.op in FUSED:
            reads = (vertex.reading(0), vertex.reading(1), vertex.reading(2))
            found.append(Meeting(Core(vertex, "", "", vertex.makes[0]), reads))
        elif vertex.op == "Softmax" and (product := _product(flow, vertex.reads[0])) is not None:
            mixed = _mixture(flow, vertex, last)
            if mixed is not None:
                q, k = flow.reads(product)
                scores = _before_sinks(flow, vertex.reads[0])
                pattern = vertex.makes[0] if scores is None else _without_sinks(flow, vertex.makes[0])
                entering = scores or _unshifted(flow, vertex.reads[0])
                masks = _masks(flow, product.makes[0], entering)
                core = Core(vertex, entering, pattern, mixed[0].makes[0], _as_computed(flow, entering), *masks)
                found.append(Meeting(core, (q, k, mixed[1])))
    return found


def _before_sinks(flow: Flow, name: str) -> str | None:
    """The scores to which a column that no token has is appended before the softmax; None where nothing is appended."""
    while (vertex := flow.graph.maker.get(name)) is not None and vertex.op in ("Cast", "Identity", "Sub", "Concat"):
        content = _rests_on(flow, vertex)
        if len(content) != 1:
            return None
        (name,) = content
        if vertex.op == "Concat":
            return name if len(vertex.reads) == 2 else None
    return None


def _unshifted(flow: Flow, name: str) -> str:
    """Scores before the largest of them is taken off, so that nothing overflows."""
    vertex = flow.graph.maker.get(name)
    if (
        vertex is not None
        and vertex.op == "Sub"
        and len(found := _rests_on(flow, vertex)) == 1 < len(flow.reads(vertex))
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


def _rests_on(flow: Flow, vertex: Vertex) -> set[str]:
    """The content that a vertex reads; a largest number of it, taken off so that nothing overflows, is the same."""
    found = set(flow.reads(vertex))
    for name in list(found):
        maker = flow.graph.maker.get(name)
        if maker is not None and maker.op == "ReduceMax" and maker.reads[0] in found:
            found.discard(name)
    if len(found) == 2 and vertex.op in MASKING:
        found -= {name for name in found if _selection(flow, name)}
    if len(found) == 2 and vertex.op in MASKING:
        scored = {name for name in found if _product(flow, name) is not None}
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


def _product(flow: Flow, name: str) -> Vertex | None:
    """Back from what enters a softmax, through masks, scales and caps, to the product of two values; None where there is none."""
    seen = 0
    while (vertex := flow.graph.maker.get(name)) is not None and seen < 40:
        content = _rests_on(flow, vertex)
        if len(content) == 2 and vertex.op in MIXING:
            return vertex
        if len(content) != 1:
            return None
        (name,) = content
        seen += 1
    return None


def _mixture(flow: Flow, softmax: Vertex, last: str) -> tuple[Vertex, str] | None:
    """The product of the pattern and of values, and the values."""
    pattern = softmax.makes[0]
    for vertex in flow.between(pattern, last):
        if vertex.op in MIXING:
            others = [name for name in flow.reads(vertex) if not flow.follows(name, pattern)]
            return (vertex, others[0]) if len(others) == 1 else None
    return None


def attention_cell(flow: Flow, point: str, branch: str, meeting: Meeting) -> Cell:
    """The parts of a branch that adds `branch` to the stream at `point`."""
    try:
        return _cell(flow, point, branch, meeting)
    except Misfit as misfit:
        return Opaque("attn", point, branch, str(misfit))


def _cell(flow: Flow, point: str, branch: str, meeting: Meeting) -> AttentionCell:
    q = k = v = latent = None
    try:
        norm, read, (q, k, v), why = *_projections(flow, point, meeting), ""
    except Misfit as misfit:
        norm, read, why = *_entrance(flow, point, branch), str(misfit)
        latent = latent_ways(flow, point, read, _operands(meeting))
    met = tuple(
        Met(name, _whole(flow, operand), operand) for name, operand in zip("qkv", _operands(meeting), strict=True)
    )
    way = segments(flow, meeting.core.z, branch)
    place = next((place for place, one in enumerate(way) if one.kind == "line"), None)
    if place is None:
        raise Misfit("no matrix stands after the mixture")
    z_norm = gate = None
    kept = post = ""
    try:
        z_norm, gate, kept = _mixed(flow, point, read, meeting.core, way[:place])
    except Misfit as misfit:
        post = str(misfit)
    try:
        ends = tail(flow, way[place:])
    except Misfit as misfit:
        ends = Tail(line_of(flow, way[place]), None, (), branch, str(misfit))
    return AttentionCell(norm, read, q, k, v, latent, met, meeting.core, z_norm, gate, ends, kept, post, why)


def _projections(flow: Flow, point: str, meeting: Meeting) -> tuple[Segment | None, str, list[Projection]]:
    """The norm before q, k and v, what they read, and the three."""
    ways = [
        _projection(flow, point, operand, values=values)
        for operand, values in zip(_operands(meeting), (False, False, True), strict=True)
    ]
    reads = {moved_from(flow, each.line.reads) for each in ways}
    if len(reads) > 1:
        raise Misfit("q, k and v are made of different values")
    (read,) = reads
    return _norm(segments(flow, point, read), "before q, k and v"), read, ways


def _whole(flow: Flow, name: str) -> str:
    """Back through what moves all of a value, and perhaps repeats it."""
    while (vertex := flow.graph.maker.get(name)) is not None and vertex.op in MOVES - PICKS:
        content = set(flow.reads(vertex))
        if len(content) != 1:
            break
        (name,) = content
    return name


def _entrance(flow: Flow, point: str, branch: str) -> tuple[Segment | None, str]:
    """The norm of the stream that all of a branch goes through, and what it reads: the norm's output, or the stream itself."""
    first = next((one for one in segments(flow, point, branch) if one.kind != "move"), None)
    return (first, first.last) if first is not None and first.kind == "norm" else (None, point)


def _operands(meeting: Meeting) -> tuple[str, str, str]:
    q, k, v = meeting.operands
    return (q, k or q, v or q)


def _projection(flow: Flow, point: str, operand: str, *, values: bool) -> Projection:
    """One of the three ways; `values`: that of v."""
    one = _line(flow, point, operand)
    way = list(segments(flow, one.makes, operand))
    begins = one.makes
    while way and way[0].kind == "scale":  # OPT scales q as soon as it is made
        begins = way.pop(0).last
    clip = norm = turn = scaled = None
    late = False
    split, turned = begins, ""
    for segment in way:
        if segment.kind == "move":
            if not turned:
                split = segment.last
        elif segment.kind == "norm" and norm is None:
            norm, turned, late = segment, segment.last, turn is not None
        elif segment.kind == "rotary" and turn is None:
            turn, turned = segment, segment.last
        elif segment.kind == "point" and not turned and clip is None and segment.ops <= {"Clip", "Min", "Max"}:
            clip, split = segment, segment.last
        elif segment.kind == "scale" and values and not turned:
            scaled, turned = segment, segment.last
        elif segment.kind == "scale":
            if not turned:
                turned = segment.first
        else:
            raise Misfit(f"{_shown(segment)} stands between a projection and where heads meet")
    done = turned if norm or turn or scaled else split
    return Projection(one, begins, split, clip, norm, turn, done, operand, late, scaled)


def _line(flow: Flow, point: str, operand: str) -> Line:
    """The nearest line before an operand."""
    found = nearest(flow, point, operand)
    if len(found) != 1:
        raise Misfit(f"{len(found)} matrices stand right before where heads meet, and not one")
    return found[0]


def _norm(way: Sequence[Segment], where: str) -> Segment | None:
    """The norm of a way that is nothing else."""
    kept = [one for one in way if one.kind != "move"]
    if not kept:
        return None
    if len(kept) > 1 or kept[0].kind != "norm":
        raise Misfit(f"{_shown(kept[0])} stands {where}")
    return kept[0]


def _mixed(
    flow: Flow, point: str, read: str, core: Core, way: Sequence[Segment]
) -> tuple[Segment | None, GateCell | None, str]:
    """From the mixture to the last line: a norm and a gate of z, and what sinks leave of it."""
    z_norm = gate = None
    kept = ""
    for one in way:
        if one.kind == "norm" and z_norm is None and gate is None:
            z_norm = one
        elif one.kind == "gate" and not (kept or z_norm or gate) and flow.follows(_factor(flow, one), core.scores):
            kept = _factor(flow, one)
        elif one.kind == "gate" and gate is None:
            gate = _gate(flow, point, read, one)
        elif one.kind != "move":
            raise Misfit(f"{_shown(one)} stands between the mixture and the last matrix")
    return z_norm, gate, kept


def _factor(flow: Flow, product: Segment) -> str:
    """What a value is multiplied by, that is content from elsewhere."""
    (factor,) = (name for name in flow.reads(product.vertices[0]) if name != product.first)
    return factor


def _gate(flow: Flow, point: str, read: str, product: Segment) -> GateCell:
    """A product of the mixture with what one matrix and an activation make of the stream."""
    factor = _factor(flow, product)
    one = _line(flow, point, factor)
    if moved_from(flow, one.reads) != read:
        raise Misfit("what gates the mixture is made of something else than q, k and v")
    way = segments(flow, one.makes, factor)
    kept = [each for each in way if each.kind != "move"]
    bias = kept.pop(0) if kept and kept[0].kind == "add" else None
    begin = bias.last if bias else factor
    if any(each.kind not in ("point", "scale", "add") for each in kept):
        raise Misfit(
            f"{_shown(next(each for each in kept if each.kind not in ('point', 'scale', 'add')))} makes what gates the mixture"
        )
    return GateCell(one, kept[0].first if kept else begin, kept[-1].last if kept else factor, product, bias)


def tail(flow: Flow, way: Sequence[Segment]) -> Tail:
    """From a branch's last line on."""
    found = ending(way[1:], way[-1].last)
    return Tail(line_of(flow, way[0]), found.post, found.scales, found.ends)


def ending(way: Sequence[Segment], ends: str) -> Ending:
    """From a branch's own output on."""
    post, scales = None, []
    for one in way:
        if one.kind == "norm" and post is None:
            post = one
        elif one.kind == "scale":
            scales.append(one)
        elif one.kind != "move":
            raise Misfit(f"{_shown(one)} stands after the last matrix")
    return Ending(post, tuple(scales), ends)


def _shown(one: Segment) -> str:
    """A segment, for people."""
    return " → ".join(vertex.op for vertex in one.vertices[:6]) + (" …" if len(one.vertices) > 6 else "")
