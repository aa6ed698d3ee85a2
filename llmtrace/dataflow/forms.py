"""How a signal lies in a value of the graph, and back. **Row**: all that belongs to one token, whatever the shape says: [1, n, c], [n, c]."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from attrs import frozen

from llmtrace.schema.sites import Array

AXES = ("token", "head", "d_head")
HIDDEN = -5e3
"""A score below it is a mask's."""


@frozen
class Rows:
    """[token, channel]."""

    def natural(self, value: Array, tokens: int) -> Array:
        """As the schema has it."""
        return value.reshape(tokens, -1)

    def put(self, value: Array, natural: Array) -> None:
        """The other way round: write a signal into a value, which must lie in one piece."""
        value.reshape(len(natural), -1)[...] = natural


@frozen(eq=False)
class Part:
    """Some columns of each row, in the shape of `columns`: [token, channel], or [token, head, channel]."""

    columns: Array

    def natural(self, value: Array, tokens: int) -> Array:
        """As the schema has it. Columns that follow one another are not gathered: that would copy them one by one."""
        rows = value.reshape(tokens, -1)
        if self._run is None:
            return rows.take(self.columns, 1)
        return rows[:, self._run].reshape(tokens, *self.columns.shape)

    def put(self, value: Array, natural: Array) -> None:
        """The other way round, as `Rows.put`."""
        value.reshape(len(natural), -1)[:, self.columns] = natural

    @cached_property
    def _run(self) -> slice | None:
        first, last = self.columns.flat[0], self.columns.flat[-1] + 1
        return slice(first, last) if np.array_equal(self.columns.ravel(), np.arange(first, last)) else None


@frozen(eq=False)
class Biased:
    """Rows to which the operator that reads them adds a constant first."""

    form: Rows | Part
    """How the sum would lie."""
    bias: Array
    """[channel]."""

    def natural(self, value: Array, tokens: int) -> Array:
        """As the schema has it."""
        return self.form.natural(self._moved(value.reshape(tokens, -1), 1), tokens)

    def put(self, value: Array, natural: Array) -> None:
        """The other way round, as `Rows.put`: the operator adds the constant to what is written."""
        rows = value.reshape(len(natural), -1)
        total = self._moved(rows, 1)
        self.form.put(total, natural)
        rows[...] = self._moved(total, -1)

    def _moved(self, rows: Array, sign: int) -> Array:
        """Marks of what is changed are no numbers: they stay."""
        return rows.copy() if rows.dtype == bool else rows + sign * self.bias


@frozen(eq=False)
class Heads:
    """Tokens, heads and channels in some order, perhaps each head several times over: [token, head, channel]."""

    order: tuple[str, ...]
    """`token`, `head`, `d_head` as they follow in memory."""
    heads: int
    """Distinct ones."""
    width: int
    """Channels a head."""
    repeat: int = 1
    """How many times each head stands there, one after the other."""
    shape: tuple[int, ...] = ()
    """Of the value, with -1 for the axis that grows with the prompt."""

    def natural(self, value: Array, tokens: int) -> Array:
        """As the schema has it, each head once."""
        return self._split(value, tokens)[:, :: self.repeat]

    def put(self, value: Array, natural: Array) -> None:
        """The other way round, as `Rows.put`; every copy of a head is written."""
        self._split(value, len(natural))[...] = np.repeat(natural, self.repeat, axis=1)

    def _split(self, value: Array, tokens: int) -> Array:
        sizes = {"token": tokens, "head": self.heads * self.repeat, "d_head": self.width}
        return value.reshape([sizes[axis] for axis in self.order]).transpose(self._places)

    @cached_property
    def _places(self) -> tuple[int, ...]:
        return tuple(self.order.index(axis) for axis in AXES)

    def native(self, natural: Array) -> Array:
        """The other way round, from [token, head, channel]."""
        repeated = np.repeat(natural, self.repeat, axis=1)
        return np.ascontiguousarray(repeated.transpose([AXES.index(axis) for axis in self.order])).reshape(self.shape)


@frozen
class Pattern:
    """[head, query, key], whatever ones and groups stand between."""

    heads: int

    def natural(self, value: Array, tokens: int) -> Array:
        """As the schema has it."""
        return value.reshape(self.heads, tokens, -1)

    def put(self, value: Array, natural: Array) -> None:
        """The other way round, as `Rows.put`."""
        value.reshape(natural.shape)[...] = natural


@frozen
class Scores(Pattern):
    """[head, query, key], what a query may not see as -inf."""

    def natural(self, value: Array, tokens: int) -> Array:
        """As the schema has it."""
        found = super().natural(value, tokens)
        return np.where(found > HIDDEN, found, np.asarray(-np.inf, found.dtype))


@frozen
class Selected:
    """[query, key], 1 where the value holds a certain number and 0 elsewhere."""

    seen: float

    def natural(self, value: Array, tokens: int) -> Array:
        """As the schema has it."""
        return np.asarray(value.reshape(tokens, -1) == self.seen, np.uint8)

    def put(self, value: Array, natural: Array) -> None:
        """The other way round, as `Rows.put`, for values of truths."""
        value.reshape(natural.shape)[...] = (natural != 0) == bool(self.seen)


@frozen(eq=False)
class Choices:
    """For each token the experts that it chose, best first, and a row of channels for each: [token, choice, channel], or [token, choice]."""

    layout: Literal["token", "choice", "expert"] = "token"
    """Whose rows follow each other last: choices of a token; tokens of a choice; tokens of an expert, of which the chosen ones are picked."""
    columns: Array | None = None
    """Some of the channels."""
    beside: tuple[str, ...] = ()
    """Values that tell what was chosen, [token, choice]: the experts, and what they were ranked by where they are not best first."""
    plain: bool = False
    """One number a choice, and no channels."""
    every: bool = False
    """All experts of a token stand there, of which the chosen ones are picked."""

    def natural(self, value: Array, tokens: int, index: Array | None = None, best: Array | None = None) -> Array:
        """As the schema has it; `index` and `best` are what stands `beside`."""
        rows = self._rows(value, tokens)
        if (self.layout == "expert" or self.every) and index is not None:
            rows = rows[np.arange(tokens)[:, None], index.reshape(tokens, -1)]
        if index is not None and best is not None:
            order = np.lexsort((index.reshape(tokens, -1), -best.reshape(tokens, -1).astype(np.float64)))
            rows = np.take_along_axis(rows, order[..., None], 1)
        rows = rows if self.columns is None else rows[..., self.columns]
        return rows[..., 0] if self.plain else rows

    def put(self, value: Array, natural: Array) -> None:
        """The other way round, as `Rows.put`, where nothing stands `beside`."""
        rows = self._rows(value, len(natural))
        columns = slice(None) if self.columns is None else self.columns
        rows[..., columns] = natural[..., None] if self.plain else natural

    def _rows(self, value: Array, tokens: int) -> Array:
        """[token, choice, channel], or of all experts [token, expert, channel]."""
        width = 1 if self.plain else value.shape[-1]
        if self.layout == "token":
            return value.reshape(tokens, -1, width)
        return value.reshape(-1, tokens, width).swapaxes(0, 1)


Form: TypeAlias = Rows | Part | Biased | Heads | Pattern | Scores | Selected | Choices


def held_by(place: tuple[str, Form]) -> tuple[str, ...]:
    """The values without which a signal cannot be shown."""
    name, form = place
    return tuple(dict.fromkeys((name, *(form.beside if isinstance(form, Choices) else ()))))


def shown(form: Form, name: str, values: Mapping[str, Array], tokens: int) -> Array:
    """The signal that a value holds, as the schema has it; `values` are those of a run."""
    if isinstance(form, Choices):
        return form.natural(values[name], tokens, *(values[each] for each in form.beside))
    return form.natural(values[name], tokens)
