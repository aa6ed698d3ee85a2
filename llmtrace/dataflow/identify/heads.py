"""Heads in a re-arranged array: in which order its axes stand, which columns are each head's, and which heads are copies of one another.

**Order**: of `token`, `head` and `d_head` as they follow in memory, whether or not some of them are merged into one axis.
"""

from __future__ import annotations

from itertools import accumulate, permutations
from operator import mul

import numpy as np
from attrs import frozen

from llmtrace.dataflow.identify.maps import IndexMap
from llmtrace.dataflow.identify.measured import Unfit
from llmtrace.schema.sites import Array

AXES = ("token", "head", "d_head")


@frozen(eq=False)
class HeadMap:
    """How an array holds heads."""

    order: tuple[str, ...]
    """`token`, `head` and `d_head` in the order of memory."""
    columns: Array
    """Which column of the input each channel of each head is, [head d_head]."""
    sizes: tuple[int, ...]
    """Of the axes in `order`."""

    def heads(self, array: Array) -> Array:
        """An array of the piece's output as `[token head d_head]`."""
        return array.reshape(self.sizes).transpose([self.order.index(axis) for axis in AXES])


@frozen(eq=False)
class Sharing:
    """Heads that are copies of one another."""

    columns: Array
    """Those of the distinct heads, [kv_head d_head], in the order of their first copy."""
    reads: tuple[int, ...]
    """Which of them each head is."""

    @property
    def grouped(self) -> bool:
        """Whether copies stand side by side, as the schema has it: head h is `h // (heads / kv_heads)`."""
        heads, kv_heads = len(self.reads), len(self.columns)
        return heads % kv_heads == 0 and self.reads == tuple(head * kv_heads // heads for head in range(heads))


def find_heads(shown: IndexMap, tokens: int, d_head: int) -> HeadMap | Unfit:
    """Where tokens, heads and channels are in an array that holds every token's heads of `d_head` channels.

    Where the shape leaves open which axis is heads and which is channels, the one that stands first is heads. Choose `tokens` unlike the
    number of heads and channels.
    """
    heads, rest = divmod(shown.token.size, tokens * d_head)
    if rest or not heads:
        return Unfit(f"{shown.token.shape} are not whole heads of {d_head} channels for {tokens} tokens")
    sizes = dict(zip(AXES, (tokens, heads, d_head), strict=True))
    shape = [size for size in shown.token.shape if size > 1]
    for order in sorted(permutations(AXES), key=lambda order: order.index("head") > order.index("d_head")):
        each = tuple(sizes[axis] for axis in order)
        if not _fits(each, shape):
            continue
        back = [order.index(axis) for axis in AXES]
        token, column = (array.reshape(each).transpose(back) for array in (shown.token, shown.column))
        if (token == np.arange(tokens)[:, None, None]).all() and (column == column[:1]).all():
            return HeadMap(order, column[0], each)
    return Unfit("its output does not hold the same columns of every token, in the order of the tokens")


def shared(columns: Array) -> Sharing | Unfit:
    """Which of the heads `[head d_head]` show the same columns."""
    first: dict[tuple[int, ...], int] = {}
    reads = tuple(first.setdefault(tuple(row), len(first)) for row in columns.tolist())
    distinct = np.array(list(first))
    if len(np.unique(distinct)) != distinct.size:
        return Unfit("heads share some of their channels and not all")
    return Sharing(distinct, reads)


def _fits(sizes: tuple[int, ...], shape: list[int]) -> bool:
    """Whether a shape is the sizes with neighbours merged, or some of them split."""
    ends = [list(accumulate(reversed(each), mul)) for each in (sizes, shape)]
    return all(one % other == 0 or other % one == 0 for one in ends[0] for other in ends[1])
