"""A signal that comes in pieces. **Rows**: the positions of one run of the graph; a prompt longer than `micro_batch` has several, and
a piece of each signal in each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import evolve, frozen

from llmtrace.edits import Change
from llmtrace.errors import OptionError
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Step
from llmtrace.schema.verify import token_axis
from llmtrace.selection import Cut


def whole(piece: Array, rows: range, step: Step, tokens: int) -> Array:
    """A whole signal with a piece in its place, and zeros elsewhere. A copy."""
    full = np.zeros(step.shape(tokens), piece.dtype)
    _rows(full, rows, step)[..., : piece.shape[-1]] = piece
    return full


def changed(piece: Array, rows: range, step: Step, tokens: int, changes: tuple[Change, ...]) -> Array:
    """A piece as changes of the whole signal leave it. A copy.

    Raises `OptionError` for attention to a position that a later run computes: there is no cell for it.
    """
    full = whole(piece, rows, step, tokens)
    for change in changes:
        change.apply(full)
    left = _rows(full, rows, step)
    if left[..., piece.shape[-1] :].any():
        raise OptionError(
            f"{changes[-1].edit or step.site}: it makes position {rows.start} attend to one that llama.cpp computes later: set "
            f"micro_batch to the length of the prompt, {tokens}."
        )
    return left[..., : piece.shape[-1]]


@frozen(eq=False)
class Pieces:
    """What of one signal is wanted, filled run by run; no more is held."""

    cut: Cut
    step: Step
    array: Array
    """As it is handed over in the end; keys that a run does not know have no weight in its rows."""

    @classmethod
    def empty(cls, cut: Cut, step: Step, tokens: int, dtype: Any) -> Pieces:
        """Nothing yet, of a prompt of so many tokens."""
        return cls(cut, step, np.zeros(cut.shape(step.shape(tokens)), dtype))

    def put(self, piece: Array, rows: range) -> None:
        """One run's rows of the signal, uncut."""
        at = token_axis(self.step)
        wanted = self.cut.indices[at]
        where: slice | list[int] = slice(rows.start, rows.stop)
        own = None
        if wanted is not None:
            where = [place for place, row in enumerate(wanted) if row in rows]
            own = tuple(wanted[place] - rows.start for place in where)
        left = evolve(self.cut, indices=(*self.cut.indices[:at], own, *self.cut.indices[at + 1 :])).apply(piece)
        self.array[(slice(None),) * at + (where, ..., slice(left.shape[-1]))] = left


def concerns(cut: Cut, step: Step, rows: range) -> bool:
    """Whether anything of a run's rows is wanted."""
    wanted = cut.indices[token_axis(step)]
    return wanted is None or any(row in rows for row in wanted)


def _rows(full: Array, rows: range, step: Step) -> Array:
    return full[(slice(None),) * token_axis(step) + (slice(rows.start, rows.stop),)]
