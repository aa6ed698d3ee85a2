"""Queries, keys and values that are made of latents (arXiv 2405.04434, §2.1): a line from the stream to a few channels, a norm of them, and a line
from there; of the keys some channels are made of the stream at once.
"""

from __future__ import annotations

from llmtrace.dataflow.graph import Flow
from llmtrace.dataflow.locating.anatomy_attention import LatentCell, LatentWays
from llmtrace.dataflow.segments import Line, line, moved_from, segments, with_bias


def latent_ways(flow: Flow, point: str, read: str, operands: tuple[str, str, str]) -> LatentWays | None:
    """The ways of q, k and v through latents, of what the branch reads; None where they are others."""
    to_q, to_k, to_v = (nearest(flow, point, operand) for operand in operands)
    if len(to_q) != 1 or len(to_v) != 1:
        return None
    kv = _latent(flow, point, read, to_v[0])
    if kv is None or {one.product.index for one in to_k} - {kv.line.product.index, kv.up.product.index}:
        return None
    if moved_from(flow, to_q[0].reads) == read:
        return LatentWays(None, to_q[0], kv)
    q = _latent(flow, point, read, to_q[0])
    return None if q is None else LatentWays(q, to_q[0], kv)


def nearest(flow: Flow, point: str, operand: str) -> list[Line]:
    """The lines that stand right before an operand, in order."""
    waiting, seen, found = [operand], set[str](), dict[int, Line]()
    while waiting:
        name = waiting.pop()
        vertex = flow.graph.maker.get(name)
        if name in seen or vertex is None or name == point or not flow.follows(name, point):
            continue
        seen.add(name)
        one = line(flow, vertex)
        if one is not None:
            found[vertex.index] = one
        else:
            waiting += flow.reads(vertex)
    return [with_bias(flow, found[index]) for index in sorted(found)]


def _latent(flow: Flow, point: str, read: str, up: Line) -> LatentCell | None:
    """What a line projects, if it is a latent: one line of what the branch reads, and perhaps a norm."""
    down = nearest(flow, point, up.reads)
    if len(down) != 1 or moved_from(flow, down[0].reads) != read or up.bias:
        return None
    way = [one for one in segments(flow, down[0].makes, up.reads) if one.kind != "move"]
    if [one.kind for one in way] not in ([], ["norm"]):
        return None
    return LatentCell(down[0], way[0].first if way else up.reads, way[0] if way else None, up)
