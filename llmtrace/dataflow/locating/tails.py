"""From where a branch is about to end to what it adds to the stream, as all kinds of branches do."""

from __future__ import annotations

from collections.abc import Sequence

from llmtrace.dataflow.graph import Flow
from llmtrace.dataflow.locating.anatomy_mlp import Ending, Tail
from llmtrace.dataflow.segments import Segment, line_of


class Misfit(Exception):  # noqa: N818  (no error of the user: it is the reason why a cell is `Opaque`, or a stretch left out)
    """Why a branch, or a stretch of it, is none of the known kind."""


def tail(flow: Flow, way: Sequence[Segment]) -> Tail:
    """From a branch's last line on."""
    found = ending(way[1:], way[-1].last)
    return Tail(found.post, found.scales, found.ends, line_of(flow, way[0]))


def ending(way: Sequence[Segment], ends: str) -> Ending:
    """From a branch's own output on."""
    post, scales = None, []
    for one in way:
        if one.kind == "norm" and post is None:
            post = one
        elif one.kind == "scale":
            scales.append(one)
        elif one.kind != "move":
            raise Misfit(f"{named(one)} stands after the last matrix")
    return Ending(post, tuple(scales), ends)


def named(one: Segment) -> str:
    """A segment, for people."""
    return " → ".join(vertex.op for vertex in one.vertices[:6]) + (" …" if len(one.vertices) > 6 else "")
