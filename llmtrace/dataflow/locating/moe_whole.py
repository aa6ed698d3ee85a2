"""A mixture whose experts are one vertex that was not looked into, as a loop over those that were chosen is: it reads rows, the experts that
were chosen and their weights, and holds their matrices.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmtrace.dataflow.graph import Flow, Vertex
from llmtrace.dataflow.locating.anatomy_moe import MoeWholeCell, Routing
from llmtrace.dataflow.locating.moe_parts import beginning, joined, router_line
from llmtrace.dataflow.locating.tails import Misfit
from llmtrace.dataflow.segments import WHOLE, moved_from


def wholes(flow: Flow, vertices: Sequence[Vertex]) -> Vertex | None:
    """The one vertex among some that may be experts: it was not looked into, holds constants, and reads three values, two of which choose."""
    found = [
        vertex
        for vertex in vertices
        if vertex.op == WHOLE and len(vertex.attributes.get("holds", ())) > 1 and len(set(flow.reads(vertex))) == 3
    ]
    return found[0] if len(found) == 1 else None


def whole_cell(flow: Flow, point: str, branch: str, vertex: Vertex, choices: Sequence[Vertex]) -> MoeWholeCell:
    """The parts of such a branch. Raises `Misfit`."""
    norm, reads = beginning(flow, point, branch)
    rows = [name for name in flow.reads(vertex) if moved_from(flow, name) == moved_from(flow, reads)]
    told = [name for name in flow.reads(vertex) if name not in rows]
    if len(rows) != 1 or len(told) != 2:
        raise Misfit("a part that was not looked into reads other things than rows, experts and weights")
    choice = choices[-1] if choices else None
    index = next((name for name in told if choice and moved_from(flow, name) == choice.makes[1]), "")
    if choice is None or not index:
        raise Misfit("no one operator chooses what a part that was not looked into reads")
    (weights,) = (name for name in told if name != index)
    router = router_line(flow, reads, choice.reads[0])
    if router.makes not in flow.chain(reads, weights):
        raise Misfit("the weights of its experts rest on more than the router's logits")
    passes = flow.chain(router.makes, choice.reads[0])
    routing = Routing(router, choice, choice.reads[0], choice.makes[0], choice.makes[1], weights, passes)
    made = vertex.makes[0]
    return MoeWholeCell(norm, reads, *joined(flow, reads, made, branch), routing, vertex, rows[0], made)
