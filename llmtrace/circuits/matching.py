"""From scores to instances: heads that meet the expectations of all roles together. **Candidate**: a head that meets one role's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from llmtrace.circuits.grammar import Edge, Node
from llmtrace.circuits.motif import Motif
from llmtrace.circuits.record import Instance
from llmtrace.errors import CircuitError

MOST = 10_000
"""Instances of one motif: more say that it tells no heads apart."""
Kappa = Callable[[Edge], float | None]
"""κ of an edge, or None where it cannot be told."""


def instances(motif: Motif, candidates: Mapping[str, Sequence[Node]], kappa: Kappa) -> list[Instance]:
    """Every choice of one candidate a role that keeps the motif's order and its edges' expectations; an edge whose κ cannot be told is kept.

    Raises `CircuitError` where there are more than `MOST`.
    """
    found: list[Instance] = []
    for instance in _choices(motif, candidates, kappa, {}):
        found.append(instance)
        if len(found) > MOST:
            raise CircuitError(
                f"The motif {motif.name} has more than {MOST:,} instances: raise what it expects, or state an order and edges."
            )
    return sorted(found, key=lambda each: -min((k for _, k in each.edges if k is not None), default=0.0))


def _choices(
    motif: Motif, candidates: Mapping[str, Sequence[Node]], kappa: Kappa, chosen: dict[str, Node]
) -> Iterator[Instance]:
    left = [role for role in motif.roles if role not in chosen]
    if not left:
        edges = tuple((edge, kappa(edge)) for edge in _edges(motif, chosen).values())
        yield Instance(tuple((role, chosen[role]) for role in motif.roles), edges)
        return
    for node in candidates[left[0]]:
        wider = chosen | {left[0]: node}
        if node not in chosen.values() and _ordered(motif, wider) and _expected(motif, wider, left[0], kappa):
            yield from _choices(motif, candidates, kappa, wider)


def _ordered(motif: Motif, chosen: Mapping[str, Node]) -> bool:
    pairs = [(chosen[a], chosen[b]) for a, b in motif.order if a in chosen and b in chosen]
    return all(before.precedes(after) for before, after in pairs)


def _expected(motif: Motif, chosen: Mapping[str, Node], new: str, kappa: Kappa) -> bool:
    """Whether the edges that the new role completes meet what is expected of them."""
    for row, edge in _edges(motif, chosen).items():
        role = motif.edges[row]
        if new in (role.source, role.target) and role.expect is not None:
            value = kappa(edge)
            if value is not None and not role.expect.met(value):
                return False
    return True


def _edges(motif: Motif, chosen: Mapping[str, Node]) -> dict[int, Edge]:
    return {
        row: Edge(chosen[edge.source], chosen[edge.target], edge.reads)
        for row, edge in enumerate(motif.edges)
        if edge.source in chosen and edge.target in chosen
    }
