"""What an influence answers, as a sentence: in a terminal, a notebook, a repr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmtrace.view.visible import named

if TYPE_CHECKING:
    from llmtrace.influence.record import Influence


def subject(influence: Influence) -> str:
    """`" Paris" rather than " London" at position 4`"""
    against = f" rather than {named(influence.foil.text, influence.foil.id)}" if influence.foil else ""
    return f"{named(influence.target.text, influence.target.id)}{against} at position {influence.position}"


def sentence(influence: Influence) -> str:
    """`alti: what " Paris" at position 4 depends on, in share (rows sum to 1)`"""
    return f"{influence.method}: what {subject(influence)} depends on, in {influence.contract.unit}"
