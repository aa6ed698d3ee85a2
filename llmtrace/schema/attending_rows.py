"""Scores, pattern and sink of some queries and heads of one attention: what was not asked for is never made.

What [head, query, key] would hold grows with the square of the prompt; this grows with the prompt, and with what was asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from llmtrace.schema.arithmetic import NUMPY
from llmtrace.schema.attention import sees
from llmtrace.schema.sites import Array
from llmtrace.spec import Attention


@np.errstate(invalid="ignore", over="ignore")  # NaN and infinity are the model's own values, and reported as such
def attending_rows(
    a: Attention,
    rot_q: Array,
    rot_k: Array,
    sinks: Array | None,
    wanted: Collection[str],
    queries: Sequence[int] | None,
    heads: Sequence[int] | None,
) -> dict[str, Array]:
    """The `wanted` of `scores`, `pattern` [head query key] and `sink` [head query] at the chosen queries and heads (None: all), in their order.

    `rot_q` [token head d_head] and `rot_k` [token kv_head d_head] are of tokens at positions 0, 1, 2 …, and `sinks` [head]; all are of the type
    in which this computes.
    """
    length, dtype = len(rot_k), rot_k.dtype
    queries = range(length) if queries is None else queries
    heads = range(a.heads) if heads is None else heads
    shape = (len(heads), len(queries), length)
    found = {name: np.empty(shape[:2] if name == "sink" else shape, dtype) for name in wanted}
    rows = max(1, NUMPY.block // length)
    keys = np.arange(length)
    for first in range(0, len(queries), rows):
        at = np.asarray(queries[first : first + rows])
        hidden = ~sees(at, keys, a.window)
        for place, head in enumerate(heads):
            here = (place, slice(first, first + len(at)))
            s = _scores(a, rot_q[at, head], rot_k[:, head // (a.heads // a.kv_heads)], at, keys, head)
            np.copyto(s, -np.inf, where=hidden)
            if "scores" in found:
                found["scores"][here] = s
            if len(found) > ("scores" in found):
                into, taken = (found[name][here] if name in found else None for name in ("pattern", "sink"))
                NUMPY.softmax(s, None if sinks is None else sinks[head], into, taken)
    return found


def _scores(a: Attention, queries: Array, keys: Array, at: Array, places: Array, head: int) -> Array:
    """Of one head, before the mask: [query key]."""
    s: Array = (queries * queries.dtype.type(a.scale)) @ keys.T
    if a.softcap is not None:
        s = np.tanh(s / a.softcap) * a.softcap
    if a.slopes:
        s += (a.slopes[head] * (places - at[:, None])).astype(s.dtype)
    return s
