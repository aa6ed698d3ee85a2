"""Who is right? The reference is one run, not the truth: its equations in float64, with its weights, say which side is nearer.

A fault keeps its size under a wider type, and rounding shrinks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from llmtrace.comparison.record import Nearer
from llmtrace.comparison.watching import Watched
from llmtrace.errors import LLMTraceError
from llmtrace.schema.evaluate import Equations
from llmtrace.schema.steps import needed
from llmtrace.schema.verify import distance, token_axis

MOST = 1 << 32
"""Multiplications that are done for it at most: parameters times tokens."""


def nearer(reference: Equations, watched: Watched, sites: Sequence[str]) -> Iterator[Nearer]:
    """Both sides' errors at some sites, from the reference's equations run in float64; nothing for a model too large for that."""
    weights = sum(math.prod(weight.shape) for weight, _ in needed(reference.spec))
    kept = watched.kept
    both = [site for site in sites if site in watched.run.signals and site in kept]
    if not both or weights * len(watched.run.ids) > MOST:
        return
    inputs = {"tokens": np.asarray(watched.run.ids), "positions": np.arange(len(watched.run.ids))}
    try:
        for site, exact in reference.run(inputs, both):
            axis = token_axis(reference.steps[site])
            ours, theirs = (distance(np.asarray(x[site]), exact, axis)[0] for x in (watched.run.signals, kept))
            yield Nearer(site, ours, theirs)
    except LLMTraceError:  # opaque branches: there is no run by equations
        return
