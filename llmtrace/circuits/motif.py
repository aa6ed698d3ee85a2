"""What a motif is. **Role**: a part that a head plays in it; **order**: which roles stand in earlier layers; **expectation**: what a
head's score, or an edge's composition, must come to; **check**: which head to ablate, and what that should do.

A motif is data: a row of `motifs.toml`, of a user's own file, or of a plugin's hook `llmtrace_motifs`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Literal

from attrs import field, frozen

from llmtrace.circuits.grammar import Reads
from llmtrace.circuits.where import Where
from llmtrace.errors import CircuitError, shown

COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
NUMBER = r"\s*(>=|<=|>|<)\s*(-?\d{1,9}(?:\.\d{1,9})?)\s*"
SCORE, KAPPA = re.compile(NUMBER, re.ASCII), re.compile(r"\s*kappa" + NUMBER, re.ASCII)
EDGE = re.compile(r"\s*([A-Za-z_]\w*)\s*->\s*([A-Za-z_]\w*)\s*<([qkv])>\s*", re.ASCII)
NAME = re.compile(r"[a-z][a-z0-9-]*", re.ASCII)
ROLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)


@frozen
class Expectation:
    """A bound on a number."""

    comparison: Literal[">=", "<=", ">", "<"]
    bound: float

    def met(self, value: float) -> bool:
        """Whether a value keeps it."""
        return COMPARISONS[self.comparison](value, self.bound)

    def surely(self, interval: tuple[float, float]) -> bool:
        """Whether every value of an interval keeps it."""
        return all(map(self.met, interval))

    @classmethod
    def parse(cls, text: str, *, kappa: bool = False) -> Expectation:
        """`>= 0.3`, or `kappa >= 1.5` for an edge. Raises `CircuitError`."""
        found = (KAPPA if kappa else SCORE).fullmatch(text)
        if found is None:
            raise CircuitError(f"{shown(text)} is no expectation: write {'kappa >= 1.5' if kappa else '>= 0.3'}.")
        return cls(found[1], float(found[2]))  # type: ignore[arg-type]  # the pattern lets nothing else through

    def __str__(self) -> str:
        """`>= 0.3`"""
        return f"{self.comparison} {self.bound:g}"


@frozen
class RoleEdge:
    """What one role reads of another: `prev->ind<k>`."""

    source: str
    target: str
    reads: Reads
    expect: Expectation | None = None
    """Of the normalised composition κ of the two heads; None: that the order holds is enough."""

    @classmethod
    def parse(cls, text: str) -> RoleEdge:
        """`prev -> ind<k>`. Raises `CircuitError`."""
        found = EDGE.fullmatch(text)
        if found is None:
            raise CircuitError(f"{shown(text)} is no edge between roles: write prev -> ind<k>.")
        return cls(found[1], found[2], found[3])  # type: ignore[arg-type]  # as above

    def __str__(self) -> str:
        """`prev->ind<k>`"""
        return f"{self.source}->{self.target}<{self.reads}>"


@frozen
class Check:
    """What ablating a head should do: the claim that makes a match more than a look."""

    ablate: str
    """Whose role's head is put at its mean."""
    metric: Literal["nll"]
    """What is measured: the mean loss in nats, over the rows that the prompts score."""
    effect: Expectation
    """Of the metric's change."""


@frozen
class Motif:
    """A recurring dependency pattern."""

    name: str
    """`induction`"""
    title: str
    """For people: «Induction head»."""
    paper: str
    """Who described it."""
    where: Mapping[str, Where]
    """Role to the keys that its head looks at."""
    expect: Mapping[str, Expectation]
    """Role to what the mean attention mass on these keys must come to, over eligible rows."""
    order: tuple[tuple[str, str], ...] = ()
    """Pairs of roles of which the first stands in an earlier layer."""
    edges: tuple[RoleEdge, ...] = ()
    """Who reads whom."""
    check: Check | None = None
    """None: the motif describes where a head looks, and claims no effect."""
    roles: tuple[str, ...] = field(init=False)
    """In the order in which they were declared."""

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "roles", tuple(self.where))
        for fault in self._faults():
            raise CircuitError(f"The motif {shown(self.name)} {fault}.")

    def _faults(self) -> list[str]:
        """What is wrong with it, in words that follow its name."""
        roles = set(self.roles)
        named = {role for pair in self.order for role in pair} | {r for e in self.edges for r in (e.source, e.target)}
        unknown = sorted((named | set(self.expect) | ({self.check.ablate} if self.check else set())) - roles)
        found = [] if NAME.fullmatch(self.name) else ["has a name that is not lower-case letters, digits and -"]
        found += [] if roles else ['has no role: give where = { head = "pattern[q, q-1]" }']
        found += [f"has the role {shown(role)}, which is no plain word" for role in roles if not ROLE.fullmatch(role)]
        found += [f"names the role {shown(role)}, and has {', '.join(self.roles)}" for role in unknown]
        found += [
            f'expects nothing of the role {role}: add expect.{role} = ">= 0.5"'
            for role in self.roles
            if role not in self.expect
        ]
        found += ["has an order that runs in a circle"] * _circular(self.order)
        found += [
            f"has the edge {edge}, and no order that puts {edge.source} before {edge.target}"
            for edge in self.edges
            if not unknown and (edge.source, edge.target) not in _closed(self.order)
        ]
        return found


def _closed(order: tuple[tuple[str, str], ...]) -> set[tuple[str, str]]:
    """All pairs that follow from the given ones."""
    closed = set(order)
    while more := {(a, d) for a, b in closed for c, d in closed if b == c} - closed:
        closed |= more
    return closed


def _circular(order: tuple[tuple[str, str], ...]) -> bool:
    return any(first == second for first, second in _closed(order))
