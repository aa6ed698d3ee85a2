"""A mixture of experts, from the stream to what it adds to it: the router's line, the choice, the matrices of experts, the weighting, the
sum. **Gathered**: the matrices of the chosen experts are looked up, a row of them for each choice of each token; **dense**: every expert
computes every token, and weights that are nought for those not chosen mix them.

What does not fit is an `Opaque` cell, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from llmtrace.dataflow.graph import Flow, Vertex
from llmtrace.dataflow.locating.anatomy import Cell, MoeCell, MoeOperatorCell, Opaque, Routing, SharedCell
from llmtrace.dataflow.locating.attention import Misfit, ending
from llmtrace.dataflow.locating.expert_lines import expert_lines, is_kept
from llmtrace.dataflow.locating.mlp import halves_of, plain_cell
from llmtrace.dataflow.segments import SUMS, Line, Segment, line, moved_from, segments, with_bias

OPERATORS = frozenset({"MoE", "QMoE"})
"""Operators that are a mixture of experts."""
SPREAD = frozenset({"ScatterElements", "Scatter"})
"""Operators by which a dense mixture spreads the chosen experts' weights over all."""


def moe_cell(flow: Flow, point: str, branch: str) -> Cell | None:
    """The parts of a branch that adds `branch` to the stream at `point`; None where nothing in it chooses."""
    vertices = list(flow.between(point, branch))
    choices = [vertex for vertex in vertices if vertex.op == "TopK" and vertex.reads[0] in flow]
    operators = [vertex for vertex in vertices if vertex.op in OPERATORS]
    if not choices and not operators:
        return None
    try:
        if operators:
            return _operator(flow, point, branch, operators)
        return _cell(flow, point, branch, choices[-1])
    except Misfit as misfit:
        return Opaque("mlp", point, branch, str(misfit))


def _cell(flow: Flow, point: str, branch: str, choice: Vertex) -> MoeCell:
    norm, reads = _beginning(flow, point, branch)
    router, index = _router(flow, reads, choice.reads[0]), choice.makes[1]
    spread = next(
        (one for one in flow.between(index, branch) if one.op in SPREAD and flow.follows(one.reads[1], index)), None
    )
    mixed = choice.makes[:2] if spread is None else spread.makes[:1]
    lines = list(expert_lines(flow, reads, branch, index, router))
    found = [(one, weighted) for one in lines if (weighted := _weighted(flow, one.makes, branch, mixed)) is not None]
    if len(found) != 1:
        raise Misfit(
            f"{len(found)} products with the matrices of its experts are multiplied by their weights, and not one"
        )
    ((down, (product, weights)),) = found
    up = tuple(one for one in lines if one is not down and flow.follows(down.reads, one.makes))
    if len(up) not in (1, 2) or any(moved_from(flow, one.reads) != moved_from(flow, reads) for one in up):
        raise Misfit(f"{len(up)} products stand before an expert's last one, or they read other things than the router")
    weights, post = moved_from(flow, weights), moved_from(flow, down.reads)
    if spread is not None:
        if flow.graph.maker[weights] is not spread:
            raise Misfit("the weights of the chosen experts are changed after they are spread over all")
        weights = moved_from(flow, spread.reads[2])
    if router.makes not in flow.chain(reads, weights):
        raise Misfit("the weights of its experts rest on more than the router's logits")
    routed = _summed(flow, product, branch)
    shared, out, scales = _joined(flow, reads, routed, branch)
    if scales:
        raise Misfit("the experts' sum is multiplied by a number before another's is added")
    passes = flow.chain(router.makes, choice.reads[0])
    routing = Routing(router, choice, choice.reads[0], choice.makes[0], index, weights, passes)
    halves = halves_of(flow, tuple(one.makes for one in up), post)
    return MoeCell(
        norm, reads, routing, up, halves, post, down, shared, out, ending(segments(flow, out, branch), branch)
    )


def _operator(flow: Flow, point: str, branch: str, operators: list[Vertex]) -> MoeOperatorCell:
    if len(operators) > 1:
        raise Misfit(f"{len(operators)} operators in it are mixtures of experts")
    (vertex,) = operators
    norm, reads = _beginning(flow, point, branch)
    router = _router(flow, reads, vertex.reads[1])
    if moved_from(flow, router.makes) != moved_from(flow, vertex.reads[1]):
        raise Misfit("something stands between its router and the operator that chooses")
    if moved_from(flow, vertex.reads[0]) != moved_from(flow, reads):
        raise Misfit("its experts read other things than its router")
    shared, out, scales = _joined(flow, reads, vertex.makes[0], branch)
    end = ending(segments(flow, out, branch), branch)
    rows, logits, makes = vertex.reads[0], vertex.reads[1], vertex.makes[0]
    return MoeOperatorCell(norm, reads, router, vertex, rows, logits, makes, scales, shared, out, end)


def _beginning(flow: Flow, point: str, branch: str) -> tuple[Segment | None, str]:
    """The norm, and what the mixture reads."""
    for one in segments(flow, point, branch):
        if one.kind == "norm":
            return one, one.last
        if one.kind != "move":
            break
    return None, point


def _router(flow: Flow, reads: str, name: str) -> Line:
    """The one line between what the mixture reads and what chooses."""
    found = [one for vertex in flow.between(reads, name) if (one := line(flow, vertex)) is not None]
    if len(found) != 1:
        raise Misfit(f"{len(found)} matrices stand before its choice, and not one")
    one = with_bias(flow, found[0])
    if one.makes not in flow.chain(reads, name) or moved_from(flow, one.reads) != moved_from(flow, reads):
        raise Misfit("its choice rests on more than one matrix's logits")
    return one


def _weighted(flow: Flow, makes: str, branch: str, mixed: Sequence[str]) -> tuple[str, str] | None:
    """The product of what an expert makes with its weight, and that weight; None where other things come first."""
    for here, there in pairwise(flow.chain(makes, branch)):
        vertex = flow.graph.maker[there]
        others = [name for name in flow.reads(vertex) if name != here]
        if vertex.op == "Mul" and len(others) == 1 and any(flow.follows(others[0], each) for each in mixed):
            return there, others[0]
        if not is_kept(vertex) or others:
            return None
    return None


def _summed(flow: Flow, product: str, branch: str) -> str:
    """The sum of the weighted outputs, laid as the branch is."""
    total = ""
    for here, there in pairwise(flow.chain(product, branch)):
        vertex = flow.graph.maker[there]
        if vertex.op == "ReduceSum" and not total:
            total = there
        elif is_kept(vertex) and set(flow.reads(vertex)) == {here}:
            total = there if total else total
        else:
            break
    if not total:
        raise Misfit("the outputs of its experts are not summed by one operator")
    return total


def _joined(flow: Flow, reads: str, routed: str, branch: str) -> tuple[SharedCell | None, str, tuple[Segment, ...]]:
    """A shared expert, the output with it, and what the experts' sum is multiplied by before."""
    name, scales = routed, list[Segment]()
    for one in segments(flow, routed, branch):
        if one.kind == "join" and one.vertices[0].op in SUMS:
            terms = [each for each in flow.reads(one.vertices[0]) if each != name]
            if len(terms) != 1 or flow.follows(terms[0], routed):
                raise Misfit("what is added to the experts' sum is no shared expert")
            return _shared(flow, reads, terms[0]), one.last, tuple(scales)
        if one.kind not in ("move", "scale"):
            break
        name = one.last
        if one.kind == "scale":
            scales.append(one)
    return None, routed, ()


def _shared(flow: Flow, reads: str, term: str) -> SharedCell:
    """A gated MLP, perhaps times one factor a token."""
    maker = flow.graph.maker[moved_from(flow, term)]
    if maker.op == "Mul" and len(content := flow.reads(maker)) == 2:
        for factor, inner in (content, content[::-1]):
            lines = [one for vertex in flow.between(reads, factor) if (one := line(flow, vertex)) is not None]
            if len(lines) == 1 and not flow.follows(inner, lines[0].makes):
                return SharedCell(plain_cell(flow, reads, inner), with_bias(flow, lines[0]), factor, term)
    return SharedCell(plain_cell(flow, reads, term), None, "", term)
