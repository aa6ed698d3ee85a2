"""Scores every head by every role, prompt by prompt, while the model runs. **Eligible row**: a query where the role's keys are defined and
visible, and are not all that it sees; **chance**: what uniform attention over the visible keys would give on the same rows.

**Shuffled**: the same score where, in each row, what the query sees stands in random order, so that the role's keys are as many others
drawn at random. What a head looks at stays as it is, where that stands is random: whatever still comes to the threshold is a false positive.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from attrs import frozen

from llmtrace.circuits.grammar import Node
from llmtrace.circuits.where import Where
from llmtrace.schema.attention import visible
from llmtrace.schema.evaluate import Signals
from llmtrace.schema.sites import Array
from llmtrace.spec import ModelSpec

SHUFFLES = 20
"""Random orders of each row, of prompts that are not long."""
ROOM = 1 << 26
"""Numbers of a prompt's orders, at most: they are held while it runs."""


@frozen(eq=False)
class Scores:
    """How far every head looks where one expression says; NaN where a prompt has no eligible row."""

    heads: tuple[Node, ...]
    """In dataflow order."""
    mass: Array
    """Mean attention mass over eligible rows, [prompt head]."""
    chance: Array
    """[prompt head]"""
    rows: Array
    """Eligible rows, [prompt head]."""
    shuffled: Array
    """The mass with each row in random order, [prompt shuffle head]."""


def eligible(keys: Array, seen: Array) -> tuple[Array, Array]:
    """Of the keys that are looked at those that are seen, both [query key], in eligible rows alone, [row key]; and these rows, [row]."""
    looked = keys & seen
    count = looked.sum(-1)
    rows = np.flatnonzero((count > 0) & (count < seen.sum(-1)))
    return looked[rows], rows


class _Sight:
    """What one window lets the queries of a prompt see, and the random orders of it."""

    def __init__(self, tokens: int, window: int | None, shuffles: int, random: np.random.Generator) -> None:
        self.seen = visible(np.arange(tokens), window)
        self.rank = np.empty((shuffles, tokens, tokens), np.int32)
        for rank in self.rank:
            drawn = random.random((tokens, tokens)) + ~self.seen  # what is not seen comes last
            rank[:] = drawn.argsort(-1).argsort(-1)


class Scoring:
    """A fold over one prompt's patterns."""

    def __init__(
        self, spec: ModelSpec, ids: Sequence[int], wheres: Collection[Where], shuffles: int, random: np.random.Generator
    ) -> None:
        self._attentions = {layer: block.attention for layer, block in enumerate(spec.blocks) if block.attention}
        self.sites: Collection[str] = tuple(f"blocks.{layer}.attn.pattern" for layer in self._attentions)
        windows = dict.fromkeys(attention.window for attention in self._attentions.values())
        self._sights = {window: _Sight(len(ids), window, shuffles, random) for window in windows}
        self._keys = {where: where.keys(ids) for where in wheres}
        self._found: dict[Where, list[tuple[Array, ...]]] = {where: [] for where in wheres}

    def layer(self, layer: int, signals: Signals) -> None:
        """Score the heads of one block."""
        attention = self._attentions.get(layer)
        if attention is None:
            return
        pattern, sight = signals[f"blocks.{layer}.attn.pattern"], self._sights[attention.window]
        for where, keys in self._keys.items():
            self._found[where].append(_scored(pattern, sight, keys))

    def finish(self, ends: Signals) -> None:
        """Nothing at the ends is attention."""

    def found(self) -> Mapping[Where, tuple[Array, ...]]:
        """Of each expression mass [head], chance [head], rows [head] and shuffled [shuffle head], all layers one after another."""
        return {
            where: tuple(np.concatenate(column, axis=-1) for column in zip(*layers, strict=True))
            for where, layers in self._found.items()
        }


def _scored(pattern: Array, sight: _Sight, keys: Array) -> tuple[Array, ...]:
    looked, rows = eligible(keys, sight.seen)
    heads = len(pattern)
    if not len(rows):
        none = np.full(heads, np.nan)
        return none, none, np.zeros(heads, int), np.full((len(sight.rank), heads), np.nan)
    seen = pattern[:, rows].astype(np.float64)
    count = looked.sum(-1, keepdims=True)
    mass = np.einsum("hrk,rk->h", seen, looked) / len(rows)
    chance = float((count[:, 0] / sight.seen[rows].sum(-1)).mean())
    flat = seen.reshape(heads, -1)
    shuffled = [flat @ (rank[rows] < count).ravel() / len(rows) for rank in sight.rank]
    return mass, np.full(heads, chance), np.full(heads, len(rows)), np.stack(shuffled)


def shuffles_of(tokens: int) -> int:
    """How many random orders there is room for, of prompts of so many tokens at most."""
    return max(1, min(SHUFFLES, ROOM // tokens**2))


def heads_of(spec: ModelSpec) -> tuple[Node, ...]:
    """Every head of a model, in dataflow order."""
    return tuple(
        Node("head", layer, head)
        for layer, block in enumerate(spec.blocks)
        if block.attention
        for head in range(block.attention.heads)
    )
