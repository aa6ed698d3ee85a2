"""Named behaviours of heads. **Eligible row**: a query where the behaviour is defined and its keys are visible; **chance**: what uniform
attention over the visible keys would give on the same rows.

A score is the mean attention mass over eligible rows; where there are none it is None, never 0. Row 0 is never eligible: a query that
sees one key only gives it all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmtrace.influence.record import HeadScore
from llmtrace.schema.attention import visible
from llmtrace.schema.sites import Array

BEHAVIOURS: tuple[str, ...] = ("previous token", "induction", "duplicate token", "first token", "self")


def behaviour_keys(ids: Sequence[int]) -> dict[str, Array]:
    """For each behaviour the keys that it looks at, as a mask [query key]; all False in a row where it is undefined.

    `induction` looks right after every earlier occurrence of the query's token (prefix matching: Olsson et al. 2022, arXiv 2209.11895,
    section «Argument 1»), `duplicate token` at those occurrences (Wang et al. 2022, arXiv 2211.00593, section 3.1), `first token` at
    position 0 (Xiao et al. 2023, arXiv 2309.17453).
    """
    tokens = np.asarray(ids)
    place = np.arange(len(tokens))
    earlier = (tokens[:, None] == tokens[None, :]) & (place[None, :] < place[:, None])
    after = np.zeros_like(earlier)
    after[:, 1:] = earlier[:, :-1]
    keys = {
        "previous token": place[None, :] == place[:, None] - 1,
        "induction": after,
        "duplicate token": earlier,
        "first token": np.broadcast_to(place[None, :] == 0, earlier.shape).copy(),
        "self": place[None, :] == place[:, None],
    }
    for mask in keys.values():
        mask[0] = False
    return keys


def head_scores(layer: int, pattern: Array, keys: dict[str, Array], window: int | None) -> list[HeadScore]:
    """Every behaviour of every head of one layer's pattern, [head query key]."""
    seen = visible(np.arange(pattern.shape[1]), window)
    found = []
    for name, mask in keys.items():
        looked = mask & seen
        rows = looked.any(-1)
        count = int(rows.sum())
        masses = (pattern * looked).sum(-1)[:, rows].mean(-1) if count else [None] * len(pattern)
        chance = float((looked.sum(-1) / seen.sum(-1))[rows].mean()) if count else None
        found += [
            HeadScore(name, layer, head, None if mass is None else float(mass), count, chance)
            for head, mass in enumerate(masses)
        ]
    return found
