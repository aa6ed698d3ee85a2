"""One prompt, and what the reference did with it."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from llmtrace.comparison.by_token import TokenNorms
from llmtrace.schema.evaluate import Signals
from llmtrace.schema.precision import Precision


@frozen(eq=False)
class Run:
    """One prompt, and what the reference did with it."""

    number: int
    """Which prompt, from 0."""
    ids: tuple[int, ...]
    """Its tokens, as the reference reads it."""
    signals: Signals = field(repr=False)
    """The reference's, whole."""
    precision: Mapping[str, Precision] = field(factory=dict, repr=False)
    """Of those that it captured."""
    norms: tuple[TokenNorms, ...] = ()
    """How large its stream is, token by token."""
