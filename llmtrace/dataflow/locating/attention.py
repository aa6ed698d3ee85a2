"""An attention branch, from the stream to what it adds: found from the place where heads look at each other outwards.

A **stretch** of it that does not fit is left out, with the reason: how q, k and v are made, what becomes of the mixture, what stands after the
last matrix. Only where no matrix ends the branch is the cell `Opaque`: its contribution is known, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from llmtrace.dataflow.graph import Flow
from llmtrace.dataflow.locating.anatomy import Cell, Opaque
from llmtrace.dataflow.locating.anatomy_attention import AttentionCell, Core, GateCell, Met, Projection
from llmtrace.dataflow.locating.anatomy_mlp import Tail
from llmtrace.dataflow.locating.cores import Meeting
from llmtrace.dataflow.locating.latent import latent_ways, nearest
from llmtrace.dataflow.locating.tails import Misfit, named, tail
from llmtrace.dataflow.segments import MOVES, Line, Segment, line_of, moved_from, segments

T = TypeVar("T")
Ways: TypeAlias = tuple[Projection | None, Projection | None, Projection | None]
"""Those of q, k and v."""
PICKS = frozenset({"Slice", "Split", "Gather", "GatherND", "Concat", "ScatterND", "TensorScatter"})
"""Operators that move a part of a value, or put parts together."""


def attention_cell(flow: Flow, point: str, branch: str, meeting: Meeting) -> Cell:
    """The parts of a branch that adds `branch` to the stream at `point`."""
    try:
        return _cell(flow, point, branch, meeting)
    except Misfit as misfit:
        return Opaque("attn", point, branch, str(misfit))


def _cell(flow: Flow, point: str, branch: str, meeting: Meeting) -> AttentionCell:
    operands, core = _operands(meeting), meeting.core
    (norm, read, (q, k, v)), why_heads = _or_why(
        lambda: _projections(flow, point, operands), lambda: (*_entrance(flow, point, branch), (None, None, None))
    )
    latent = latent_ways(flow, point, read, operands) if why_heads else None
    met = tuple(Met(name, _whole(flow, operand), operand) for name, operand in zip("qkv", operands, strict=True))
    way = segments(flow, core.z, branch)
    place = next((place for place, one in enumerate(way) if one.kind == "line"), None)
    if place is None:
        raise Misfit("no matrix stands after the mixture")
    before, after = way[:place], way[place:]
    (z_norm, gate, kept), why_mixture = _or_why(
        lambda: _mixed(flow, point, read, core, before), lambda: (None, None, "")
    )
    end, why_tail = _or_why(lambda: tail(flow, after), lambda: Tail(None, (), branch, line_of(flow, after[0])))
    return AttentionCell(
        norm, read, q, k, v, latent, met, core, z_norm, gate, end, kept, why_heads, why_mixture, why_tail
    )


def _or_why(found: Callable[[], T], otherwise: Callable[[], T]) -> tuple[T, str]:
    """What a stretch is; where it does not fit, what is known all the same, and why it is no more."""
    try:
        return found(), ""
    except Misfit as misfit:
        return otherwise(), str(misfit)


def _projections(flow: Flow, point: str, operands: Sequence[str]) -> tuple[Segment | None, str, Ways]:
    """The norm before q, k and v, what they read, and the three."""
    q, k, v = (_projection(flow, point, each, values=name == "v") for name, each in zip("qkv", operands, strict=True))
    reads = {moved_from(flow, each.line.reads) for each in (q, k, v)}
    if len(reads) > 1:
        raise Misfit("q, k and v are made of different values")
    (read,) = reads
    return _norm(segments(flow, point, read), "before q, k and v"), read, (q, k, v)


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
            raise Misfit(f"{named(segment)} stands between a projection and where heads meet")
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
        raise Misfit(f"{named(kept[0])} stands {where}")
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
            raise Misfit(f"{named(one)} stands between the mixture and the last matrix")
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
            f"{named(next(each for each in kept if each.kind not in ('point', 'scale', 'add')))} makes what gates the mixture"
        )
    return GateCell(one, kept[0].first if kept else begin, kept[-1].last if kept else factor, product, bias)
