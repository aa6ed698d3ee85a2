"""What an influence answers, as a sentence: in a terminal, a notebook, a repr, a title.

A method that **aims** explains a token; one that does not explains a position, whatever token is predicted there, and its sentences
name none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmtrace.view.figures import probability, ranks
from llmtrace.view.visible import named

if TYPE_CHECKING:
    from llmtrace.influence.record import Influence
    from llmtrace.trace import Token

ANY = "whatever token is predicted"


def subject(influence: Influence) -> str:
    """`" Paris" rather than " London" at position 4`, or `position 4` where the method does not aim."""
    if not influence.aims:
        return f"position {influence.position}"
    against = f" rather than {named(influence.foil.text, influence.foil.id)}" if influence.foil else ""
    return f"{named(influence.target.text, influence.target.id)}{against} at position {influence.position}"


def verb(influence: Influence) -> str:
    """A token depends on others; a position, which may predict any, draws on them."""
    return "depends on" if influence.aims else "draws on"


def sentence(influence: Influence) -> str:
    """`dla: what " Paris" at position 4 depends on, in logits`; `alti: what position 4 draws on, whatever token is predicted, in …`"""
    whatever = "" if influence.aims else f" {ANY},"
    return f"{influence.method}: what {subject(influence)} {verb(influence)},{whatever} in {influence.contract.unit}"


def standings(influence: Influence) -> str:
    """`predicted: " Paris" (probability 0.773); target: "Paris" (probability 0.000912, rank 44)`; empty where neither is known."""
    best, own = influence.predicted_standing, influence.target_standing
    if best is None or own is None:
        return ""
    there = influence.predictions[influence.position]
    said = f"predicted: {named(there.text, there.id)} (probability {probability(best.probability)})"
    if not influence.aims or there.id == influence.target.id:
        return said
    target = f"{named(influence.target.text, influence.target.id)} (probability {probability(own.probability)}"
    return f"{said}; target: {target}, rank {ranks(own.ranks)})"


def source(tokens: Sequence[Token], place: int) -> str:
    """A source token in a sentence; with its position where the same token stands elsewhere too."""
    token = tokens[place]
    again = sum(other.id == token.id for other in tokens) > 1
    return named(token.text, token.id) + (f" at {place}" if again else "")
