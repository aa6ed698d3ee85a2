"""Scores, pattern and sink of one attention in float32, quickly: what `attention.scores`, `.pattern` and `.sink` say, in another order.

**Block**: queries that are worked on together, and the keys that any of them sees. What is computed of a block stays in a processor's
cache until it is written out, and what no query of it sees is not computed. The equations, in float64, are what this is held against.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from functools import lru_cache

import numpy as np

from llmtrace.schema.arithmetic import NUMPY, Arithmetic
from llmtrace.schema.attention import by_group, sees
from llmtrace.schema.reuse import Reuse
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Step
from llmtrace.spec import Attention

HIDDEN: dict[str, float] = {"scores": -np.inf, "pattern": 0.0, "sink": 0.0}
"""What is made here, by the site's own name, and what it holds where a query may not see a key."""
ROWS = 64
"""Queries of a block, at most: half of a block's square on the diagonal is computed for nothing."""
FEW = 8
"""Queries of a block, at least: products of fewer rows are slow."""
SMALL = 87.0
"""No score being larger, nor their exponentials' sum larger than the exponential of this, a softmax needs no shift: all of float32's digits
are there, from `exp(-87)` to `exp(87)`."""
LARGE = 1e30
"""Scores that may be larger than this are left to float64: no sum below it leaves float32."""


def attends(step: Step, rests: Collection[str]) -> bool:
    """Whether a site that is derived from the signals `rests` is one of these, and follows from queries and keys.

    A pattern whose scores were captured does not: it is one softmax.
    """
    return (
        isinstance(step.record, Attention)
        and not (step.record.selective or step.record.masked)
        and not step.record.sinks_after
        and step.equation.name in HIDDEN
        and step.signals.get("scores", step.site) not in rests
    )


class Attending:
    """Scores, patterns and sinks of the attentions of one run, one after another. Its arrays may be kept; the memory of those that nobody keeps
    is used again.
    """

    def __init__(self, length: int, arithmetic: Arithmetic = NUMPY) -> None:
        self._length = length
        self._with = arithmetic
        self._work = np.empty(0, np.float32)
        self._memory = {name: Reuse() for name in HIDDEN}
        self._windows: dict[int, int | None] = {}
        """By the identity of an array, the window outside of which it holds what stands there already."""

    def __call__(
        self, a: Attention, rot_q: Array, rot_k: Array, sinks: Array | None, wanted: Collection[str]
    ) -> dict[str, Array]:
        """The `wanted` of `scores`, `pattern` [head query key] and `sink` [head query], in float32.

        `rot_q` [token head d_head] and `rot_k` [token kv_head d_head] of tokens at positions 0, 1, 2 …, and `sinks` [head] are float32.
        Nothing is made, and the answer is empty, where a number is not finite or so large that sums could leave float32.
        """
        reach = _reach(a, rot_q, rot_k, sinks)
        if not reach < LARGE:
            return {}
        shift = reach > SMALL - math.log(self._length + 1)
        length, group = self._length, a.heads // a.kv_heads
        found = {name: self._array(name, a) for name in wanted}
        parts = {name: array.reshape(a.kv_heads, group, *array.shape[1:]) for name, array in found.items()}
        queries = np.empty((a.kv_heads, group, length, a.d_head), np.float32)
        np.multiply(by_group(a, rot_q), a.scale, out=queries)
        keys = np.ascontiguousarray(rot_k.transpose(1, 0, 2))
        per_head = None if sinks is None else sinks.reshape(a.kv_heads, group, 1, 1)
        work = self._with.block
        rows = min(ROWS, max(FEW, work // (group * min(length, (a.window or length) + ROWS))))
        for start in range(0, length, rows):
            end = min(start + rows, length)
            first = max(0, start - a.window + 1) if a.window else 0
            heads = max(1, work // (group * (end - start) * (end - first)))
            for head in range(0, a.kv_heads, heads):
                these = slice(head, head + heads)
                s = self._scores(a, queries[these, :, start:end], keys[these, first:end], these, start, first)
                at = (these, slice(None), slice(start, end), slice(first, end))
                if "scores" in parts:
                    parts["scores"][at] = s
                if "pattern" in parts or "sink" in parts:
                    into = parts["pattern"][at] if "pattern" in parts else None
                    taken = parts["sink"][at[:-1]] if "sink" in parts else None
                    self._with.softmax(s, None if per_head is None else per_head[these], into, taken, shift=shift)
        return found

    def _array(self, name: str, a: Attention) -> Array:
        """Memory for one site, which holds already what stands outside of all blocks."""
        shape = (a.heads, *(self._length,) * (1 if name == "sink" else 2))
        array, new = self._memory[name].take(shape, "float32", zeros=HIDDEN[name] == 0)
        if not (new and HIDDEN[name] == 0) and (new or self._windows[id(array)] != a.window):
            array.fill(HIDDEN[name])
        self._windows[id(array)] = a.window
        return array

    def _scores(self, a: Attention, queries: Array, keys: Array, heads: slice, start: int, first: int) -> Array:
        """The scores of one block, [kv_head group query key], where the next block's will be too.

        `queries` [kv_head group query d_head] are scaled, and the first is at position `start`; `keys` [kv_head key d_head] begin at `first`.
        """
        kv_heads, group, rows, _ = queries.shape
        shape = (kv_heads, group * rows, keys.shape[1])
        size = kv_heads * group * rows * keys.shape[1]
        if size > len(self._work):
            self._work = np.empty(size, np.float32)
        product = self._work[:size].reshape(shape)
        self._with.matmul(queries.reshape(kv_heads, group * rows, -1), keys.swapaxes(-1, -2), product)
        s = product.reshape(kv_heads, group, rows, -1)
        if a.softcap is not None:
            s /= a.softcap
            np.tanh(s, out=s)
            s *= a.softcap
        if a.slopes:
            slopes = np.asarray(a.slopes, np.float32).reshape(a.kv_heads, group, 1, 1)[heads]
            s += slopes * (np.arange(first, start + rows) - np.arange(start, start + rows)[:, None]).astype(np.float32)
        for edge, hidden in _edges(rows, start - first, a.window):
            s[..., edge] += hidden
        return s


def _edges(rows: int, before: int, window: int | None) -> Iterator[tuple[slice, Array]]:
    """Of a block with `before` keys before its first query: where keys are that not all queries see, and what hides them, 0 or -inf.

    Between the two, every query of the block sees every key.
    """
    yield slice(before, None), _hidden(rows, 0, rows, window)
    if window and before:
        yield slice(0, min(rows, before)), _hidden(rows, -before, min(rows, before), window)


@lru_cache(maxsize=64)
def _hidden(rows: int, first: int, count: int, window: int | None) -> Array:
    """What is added to scores of queries at 0, 1, … and of keys at `first`, `first` + 1, …: [query key]."""
    visible = sees(np.arange(rows), np.arange(first, first + count), window)
    return np.where(visible, np.float32(0), np.float32(-np.inf))


def _reach(a: Attention, rot_q: Array, rot_k: Array, sinks: Array | None) -> float:
    """A bound on the size of a score and of every sum on the way to it: no product of vectors is larger than that of their lengths.

    NaN or infinite where an input is, or where its square leaves float32.
    """
    longest_q, longest_k = (np.sqrt(np.einsum("thd,thd->th", x, x).max(0)) for x in (rot_q, rot_k))
    products = abs(a.scale) * longest_q.reshape(a.kv_heads, -1) * longest_k[:, None]
    reach = float(products.max())
    if a.softcap is not None and reach < LARGE:
        reach = min(reach, a.softcap)
    if a.slopes:
        reach += max(map(abs, a.slopes)) * len(rot_q)
    return reach if sinks is None else float(np.maximum(reach, np.abs(sinks).max()))
