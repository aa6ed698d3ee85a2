"""What mixtures of experts have in common, however their experts are computed: the norm, the router's line, what is added to their sum."""

from __future__ import annotations

from llmtrace.dataflow.graph import Flow, Vertex
from llmtrace.dataflow.locating.anatomy_mlp import Ending
from llmtrace.dataflow.locating.anatomy_moe import SharedCell
from llmtrace.dataflow.locating.cores import MIXING
from llmtrace.dataflow.locating.mlp import plain_cell
from llmtrace.dataflow.locating.tails import Misfit, ending
from llmtrace.dataflow.segments import SUMS, Line, Segment, line, moved_from, segments, with_bias


def chooses(flow: Flow, point: str, vertex: Vertex) -> bool:
    """Whether a vertex chooses experts of what was made of `point`, and no positions: those are ranked by products of tokens with each other."""
    ranked = vertex.reads[0] if vertex.op == "TopK" else ""
    return ranked in flow and not any(
        each.op in MIXING and len(flow.reads(each)) > 1 for each in flow.between(point, ranked)
    )


def beginning(flow: Flow, point: str, branch: str) -> tuple[Segment | None, str]:
    """The norm, and what the mixture reads."""
    for one in segments(flow, point, branch):
        if one.kind == "norm":
            return one, one.last
        if one.kind != "move":
            break
    return None, point


def router_line(flow: Flow, reads: str, name: str) -> Line:
    """The one line between what the mixture reads and what chooses."""
    found = [one for vertex in flow.between(reads, name) if (one := line(flow, vertex)) is not None]
    if len(found) != 1:
        raise Misfit(f"{len(found)} matrices stand before its choice, and not one")
    one = with_bias(flow, found[0])
    if one.makes not in flow.chain(reads, name) or moved_from(flow, one.reads) != moved_from(flow, reads):
        raise Misfit("its choice rests on more than one matrix's logits")
    return one


def joined(
    flow: Flow, reads: str, routed: str, branch: str
) -> tuple[tuple[Segment, ...], SharedCell | None, str, Ending]:
    """What becomes of the experts' sum: factors of it, a shared expert, the output with that, and how it ends."""
    scales, shared, out = _shared_beside(flow, reads, routed, branch)
    return scales, shared, out, ending(segments(flow, out, branch), branch)


def _shared_beside(
    flow: Flow, reads: str, routed: str, branch: str
) -> tuple[tuple[Segment, ...], SharedCell | None, str]:
    """What the experts' sum is multiplied by before a shared expert is added, or before a norm of it; that expert, and the output with it."""
    name, scales = routed, list[Segment]()
    for one in segments(flow, routed, branch):
        if one.kind == "join" and one.vertices[0].op in SUMS:
            terms = [each for each in flow.reads(one.vertices[0]) if each != name]
            if len(terms) != 1 or flow.follows(terms[0], routed):
                raise Misfit("what is added to the experts' sum is no shared expert")
            return tuple(scales), _shared(flow, reads, terms[0]), one.last
        if one.kind == "norm" and scales:
            return tuple(scales), None, name
        if one.kind not in ("move", "scale"):
            break
        name = one.last
        if one.kind == "scale":
            scales.append(one)
    return (), None, routed


def _shared(flow: Flow, reads: str, term: str) -> SharedCell:
    """A gated MLP, perhaps times one factor a token."""
    maker = flow.graph.maker[moved_from(flow, term)]
    if maker.op == "Mul" and len(content := flow.reads(maker)) == 2:
        for factor, inner in (content, content[::-1]):
            lines = [one for vertex in flow.between(reads, factor) if (one := line(flow, vertex)) is not None]
            if len(lines) == 1 and not flow.follows(inner, lines[0].makes):
                return SharedCell(plain_cell(flow, reads, inner), with_bias(flow, lines[0]), factor, term)
    return SharedCell(plain_cell(flow, reads, term), None, "", term)
