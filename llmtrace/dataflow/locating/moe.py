"""A mixture of experts, from the stream to what it adds to it: the router's line, the choice, the matrices of experts, the weighting, the
sum. **Gathered**: the matrices of the chosen experts are looked up, a row of them for each choice of each token; **dense**: every expert
computes every token, and weights that are nought for those not chosen mix them.

What does not fit is an `Opaque` cell, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from attrs import frozen

from llmtrace.dataflow.graph import Flow, Vertex
from llmtrace.dataflow.locating.anatomy import Cell, Opaque
from llmtrace.dataflow.locating.anatomy_moe import ExpertLine, MoeCell, MoeOperatorCell, Routing
from llmtrace.dataflow.locating.expert_lines import expert_lines, is_kept, looked_up
from llmtrace.dataflow.locating.mlp import halves_of
from llmtrace.dataflow.locating.moe_parts import beginning, chooses, joined, router_line
from llmtrace.dataflow.locating.moe_whole import whole_cell, wholes
from llmtrace.dataflow.locating.tails import Misfit
from llmtrace.dataflow.segments import FACTORS, Line, moved_from

OPERATORS = frozenset({"MoE", "QMoE"})
"""Operators that are a mixture of experts."""
SPREAD = frozenset({"ScatterElements", "Scatter"})
"""Operators by which a dense mixture spreads the chosen experts' weights over all."""


@frozen(eq=False)
class Weighing:
    """Where weights multiply, and what is multiplied and summed."""

    down: ExpertLine
    up: tuple[ExpertLine, ...]
    weights: str
    summed: str
    """What is summed over the experts: their weighted outputs, or their outputs."""
    entering: str = ""
    """What the experts read, where the weights multiply that."""


def moe_cell(flow: Flow, point: str, branch: str) -> Cell | None:
    """The parts of a branch that adds `branch` to the stream at `point`; None where nothing in it chooses."""
    vertices = list(flow.between(point, branch))
    choices = [vertex for vertex in vertices if chooses(flow, point, vertex)]
    operators = [vertex for vertex in vertices if vertex.op in OPERATORS]
    one = wholes(flow, vertices)
    index = "" if choices or operators or one else looked_up(flow, vertices)
    if not (choices or operators or one or index):
        return None
    try:
        if operators:
            return _operator(flow, point, branch, operators)
        if one:
            return whole_cell(flow, point, branch, one, choices)
        return _cell(flow, point, branch, choices[-1] if choices else None, index)
    except Misfit as misfit:
        return Opaque("mlp", point, branch, str(misfit))


def _cell(flow: Flow, point: str, branch: str, choice: Vertex | None, index: str) -> MoeCell:
    """`index` are the experts, where no one operator chooses them."""
    norm, reads = beginning(flow, point, branch)
    index = choice.makes[1] if choice else index
    router = router_line(flow, reads, choice.reads[0] if choice else index)
    ranked = choice.reads[0] if choice else router.makes
    spread = next(
        (one for one in flow.between(index, branch) if one.op in SPREAD and flow.follows(one.reads[1], index)), None
    )
    mixed = spread.makes[:1] if spread else choice.makes[:2] if choice else (router.makes,)
    found = _outputs(flow, reads, branch, index, router, mixed) or _inputs(flow, reads, branch, router, mixed)
    if found is None:
        raise Misfit("no product with the matrices of its experts is multiplied by their weights")
    weights = moved_from(flow, found.weights)
    changed = spread is not None and flow.graph.maker[weights] is not spread
    if spread is not None and not changed:
        weights = moved_from(flow, spread.reads[2])
    elif changed and not found.entering:
        raise Misfit("the weights of the chosen experts are changed after they are spread over all")
    if router.makes not in flow.chain(reads, weights):
        raise Misfit("the weights of its experts rest on more than the router's logits")
    whole = joined(flow, reads, _summed(flow, found.summed, branch), branch)
    routing = Routing(
        router, choice, ranked, choice.makes[0] if choice else "", index, weights,
        flow.chain(router.makes, ranked), changed,
    )  # fmt: skip
    post = moved_from(flow, found.down.reads)
    halves = halves_of(flow, tuple(one.makes for one in found.up), post)
    return MoeCell(norm, reads, *whole, routing, found.up, halves, post, found.down, found.entering)


def _outputs(flow: Flow, reads: str, branch: str, index: str, router: Line, mixed: Sequence[str]) -> Weighing | None:
    """Weights that multiply what experts make."""
    lines = list(expert_lines(flow, reads, branch, router, index))
    found = [(one, weighted) for one in lines if (weighted := _weighted(flow, one.makes, branch, mixed)) is not None]
    if not found:
        return None
    if len(found) > 1:
        raise Misfit(
            f"{len(found)} products with the matrices of its experts are multiplied by their weights, and not one"
        )
    ((down, (product, weights)),) = found
    up = tuple(one for one in lines if one is not down and flow.follows(down.reads, one.makes))
    if len(up) not in (1, 2) or any(moved_from(flow, one.reads) != moved_from(flow, reads) for one in up):
        raise Misfit(f"{len(up)} products stand before an expert's last one, or they read other things than the router")
    return Weighing(down, up, weights, product)


def _inputs(flow: Flow, reads: str, branch: str, router: Line, mixed: Sequence[str]) -> Weighing | None:
    """Weights that multiply what experts read."""
    for vertex in flow.between(mixed[0], branch):
        content = flow.reads(vertex)
        if vertex.op not in FACTORS or len(content) != 2:
            continue
        for x, weights in (content, content[::-1]):
            if moved_from(flow, x) != moved_from(flow, reads) or not any(flow.follows(weights, each) for each in mixed):
                continue
            entering = vertex.makes[0]
            lines = [one for one in expert_lines(flow, entering, branch, router) if flow.follows(one.reads, entering)]
            up = tuple(one for one in lines if moved_from(flow, one.reads) == moved_from(flow, entering))
            down = [one for one in lines if one not in up]
            if len(up) in (1, 2) and len(down) == 1:
                return Weighing(down[0], up, weights, down[0].makes, up[0].reads)
    return None


def _operator(flow: Flow, point: str, branch: str, operators: list[Vertex]) -> MoeOperatorCell:
    if len(operators) > 1:
        raise Misfit(f"{len(operators)} operators in it are mixtures of experts")
    (vertex,) = operators
    norm, reads = beginning(flow, point, branch)
    router = router_line(flow, reads, vertex.reads[1])
    if moved_from(flow, router.makes) != moved_from(flow, vertex.reads[1]):
        raise Misfit("something stands between its router and the operator that chooses")
    if moved_from(flow, vertex.reads[0]) != moved_from(flow, reads):
        raise Misfit("its experts read other things than its router")
    rows, logits, makes = vertex.reads[0], vertex.reads[1], vertex.makes[0]
    return MoeOperatorCell(norm, reads, *joined(flow, reads, makes, branch), router, vertex, rows, logits, makes)


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
