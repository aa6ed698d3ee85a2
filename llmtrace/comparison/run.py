"""One prompt, and what the reference did with it. **Progress**: whoever is told what is being done, since it takes time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from attrs import field, frozen

from llmtrace.comparison.by_token import TokenNorms
from llmtrace.schema.evaluate import Signals
from llmtrace.schema.precision import Precision

Progress: TypeAlias = Callable[[str], None]
"""Called with what is being done, in words: `prompt 2 of 4`."""


def nothing_said(doing: str) -> None:
    """Tell nobody."""


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
