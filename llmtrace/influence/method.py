"""What an influence method is. **Method**: one row of data and a fold; **task**: what one call asks of it.

Adding a method is a file with a fold and a row, returned by a plugin's `llmtrace_influence_methods`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from attrs import field, frozen

from llmtrace.influence.record import Contract, HeadScore
from llmtrace.schema.evaluate import Equations, Signals
from llmtrace.schema.sites import Array
from llmtrace.trace import Token


@frozen
class Task:
    """What a method is asked: a prompt, a position, a target."""

    equations: Equations
    """The model's spec and weights."""
    tokens: tuple[Token, ...]
    position: int
    """Whose prediction; counted from the start."""
    target: Token | None
    """None for a method whose row does not aim: nothing that it answers may depend on a target."""
    foil: Token | None = None
    predictions: tuple[Token, ...] = field(default=())
    """The predicted token at every position, where the method's row says that it wants them."""

    @property
    def ids(self) -> tuple[int, ...]:
        """The token ids of the prompt."""
        return tuple(token.id for token in self.tokens)


@frozen(eq=False)
class Answer:
    """What a fold found; the fields mean what they mean in `Influence`."""

    scores: Array
    completeness_gap: float | None = None
    matrix: Array | None = None
    parts: tuple[tuple[str, float], ...] = ()
    heads: Array | None = None
    maps: Array | None = None
    layers: Array | None = None
    table: tuple[HeadScore, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[tuple[str, float | str], ...] = ()


class InfluenceFold(Protocol):
    """A method at work on one task: a `Fold` that answers at the end."""

    sites: Collection[str]
    """The sites that it reads, whole, by full name."""

    def layer(self, layer: int, signals: Signals) -> None:
        """One block's signals, whole, by site."""

    def finish(self, ends: Signals) -> None:
        """The signals that stand in no block."""

    def answer(self) -> Answer:
        """`scores` and whatever else the method gives; call after `finish`."""


@frozen
class Method:
    """One row of the method table."""

    name: str
    title: str
    needs: str
    """Abilities that it asks of a backend: `T` a trace, `W` weights."""
    cost: str
    """In tokens T, layers L, heads H, width d: `T² d L`."""
    completeness: str | None
    """The identity whose gap it reports; None where it claims none."""
    source: str
    """Paper and equation."""
    contract: Contract
    fold: Callable[[Task], InfluenceFold]
    """Makes the fold; raises `UnsupportedModelError` for a model that the method does not speak about."""
    predictions: bool = False
    """Whether the fold must know every position's predicted token before the pass, for its `matrix`."""
    aims: bool = True
    """Whether a target, and a foil, enter the scores. A method that does not aim explains the position whatever token is predicted:
    its task has no target, a foil is refused, and its sentences name no token."""
