"""An MLP branch, plain or gated, from the stream to what it adds. What does not fit is an `Opaque` cell, with the reason."""

from __future__ import annotations

from collections.abc import Sequence

from llmtrace.dataflow.graph import Flow
from llmtrace.dataflow.locating.anatomy import Cell, Opaque
from llmtrace.dataflow.locating.anatomy_mlp import MlpCell
from llmtrace.dataflow.locating.tails import Misfit, tail
from llmtrace.dataflow.segments import Segment, lines_between, moved_from, segments


def mlp_cell(flow: Flow, point: str, branch: str) -> Cell:
    """The parts of a branch that adds `branch` to the stream at `point`."""
    try:
        return plain_cell(flow, point, branch)
    except Misfit as misfit:
        return Opaque("mlp", point, branch, str(misfit))


def plain_cell(flow: Flow, point: str, branch: str) -> MlpCell:
    """The same. Raises `Misfit`."""
    way = segments(flow, point, branch)
    places = [place for place, one in enumerate(way) if one.kind == "line"]
    if not places:
        raise Misfit("no one matrix ends it")
    end = tail(flow, way[places[-1] :])
    post = end.line.reads
    inner = _inner_norm(flow, way[: places[-1]])
    if inner is not None:
        post = inner.first
    norm, reads = None, point
    for one in way[: places[-1]]:
        if one.kind == "norm" and norm is None:
            norm, reads = one, one.last
        elif one.kind == "move" and flow.follows(post, one.last) and reads == one.first:
            reads = one.last
        else:
            break
    lines = tuple(lines_between(flow, reads, post))
    if len(lines) not in (1, 2) or any(moved_from(flow, each.reads) != moved_from(flow, reads) for each in lines):
        raise Misfit(f"{len(lines)} matrices stand before its last one")
    return MlpCell(norm, reads, lines, halves_of(flow, tuple(each.makes for each in lines), post), post, end, inner)


def _inner_norm(flow: Flow, way: Sequence[Segment]) -> Segment | None:
    """A norm right before the last line, after others."""
    kept = [one for one in way if one.kind != "move"]
    last = kept[-1] if kept else None
    if last is None or last.kind != "norm" or not any(lines_between(flow, way[0].first, last.first)):
        return None
    return last


def halves_of(flow: Flow, made: tuple[str, ...], post: str) -> tuple[str, ...]:
    """What enters the activation, and what multiplies it, of what one or two lines make."""
    if len(made) == 2:
        return made
    name = made[0]
    while len(readers := flow.graph.readers.get(name, [])) == 1 and readers[0].op in ("Reshape", "Cast", "Identity"):
        name = readers[0].makes[0]
    parts = [
        each
        for vertex in readers
        if vertex.op in ("Split", "Slice", "Gather")
        for each in vertex.makes
        if each in flow and flow.follows(post, each)
    ]
    return tuple(parts) if len(parts) == 2 else made
