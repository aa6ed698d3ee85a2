"""A weight of both sides, and what may have been done to it. **Change**: one such thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from attrs import frozen

from llmtrace.schema.sites import Array


@frozen
class Pair:
    """One weight of both sides."""

    name: str
    """By schema name."""
    axes: tuple[str, ...]
    """Of both."""
    reference: Array
    """The reference's."""
    candidate: Array
    """The candidate's, which may have another shape."""
    others: Mapping[str, Callable[[], Array]]
    """The reference's other weights of the same shape, read when they are asked for, by name."""
    rows: tuple[int, ...] = ()
    """The axes that a format's blocks run along; empty: the last."""


Change = Callable[[Pair], Iterator[tuple[str, Array]]]
"""Yields what may have been done, in words, and the reference's tensor after that."""
