"""Named behaviours of heads on one prompt: where the built-in motifs look (`llmtrace.circuits`), one a motif, that of its last role.

A score is the mean attention mass over eligible rows; where there are none it is None, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from llmtrace.circuits.reading import built_in
from llmtrace.circuits.scoring import eligible
from llmtrace.influence.record import HeadScore
from llmtrace.schema.attention import visible
from llmtrace.schema.sites import Array


def behaviour_keys(ids: Sequence[int]) -> dict[str, Array]:
    """For each behaviour the keys that it looks at, as a mask [query key]; all False in a row where it is undefined."""
    return {name: motif.where[motif.roles[-1]].keys(ids) for name, motif in built_in().items()}


def head_scores(layer: int, pattern: Array, keys: Mapping[str, Array], window: int | None) -> list[HeadScore]:
    """Every behaviour of every head of one layer's pattern, [head query key]."""
    seen = visible(np.arange(pattern.shape[1]), window)
    found = []
    for name, mask in keys.items():
        looked, rows = eligible(mask, seen)
        count = len(rows)
        masses = np.einsum("hrk,rk->h", pattern[:, rows], looked) / count if count else [None] * len(pattern)
        chance = float((looked.sum(-1) / seen[rows].sum(-1)).mean()) if count else None
        found += [
            HeadScore(name, layer, head, None if mass is None else float(mass), count, chance)
            for head, mass in enumerate(masses)
        ]
    return found
