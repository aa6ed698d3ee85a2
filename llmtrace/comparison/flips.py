"""Experts that a candidate chooses instead of the reference's. **Margin**: how near the choice was, in the reference: the largest difference of
router logits between an expert that it chose and one that took its place, over their root mean square. **Parted**: a token whose stream was
off by more than the margin when it came to the router; its flip needs no explanation of its own.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from llmtrace.schema.sites import Array


@frozen
class Flips:
    """One router's, on one prompt."""

    site: str
    """Of the choice: `blocks.3.mlp.expert_index`."""
    prompt: int
    """Which prompt, from 0."""
    experts: int
    """Choices that are others, over all tokens."""
    tokens: int
    """Tokens that have any."""
    margin: float
    """The largest margin among them."""
    parted: int
    """Tokens among them that had parted before."""


def flips(
    site: str, prompt: int, reference: Array, candidate: Array, router: Array, streams: tuple[Array, Array] | None
) -> Flips | None:
    """Compare choices [token choice] as sets; None where they are the same, or not of one shape.

    `router` are the reference's logits [token expert], `streams` both sides' [token d_model] before the block (None: not to be had).
    """
    if reference.shape != candidate.shape:
        return None
    other = ~(candidate[:, :, None] == reference[:, None, :]).any(-1)
    lost = ~(reference[:, :, None] == candidate[:, None, :]).any(-1)
    tokens = np.nonzero(other.any(-1))[0]
    if not len(tokens):
        return None
    margins = np.array([_margin(router[t], reference[t, lost[t]], candidate[t, other[t]]) for t in tokens])
    parted = 0
    if streams is not None:
        ours, theirs = (x[tokens].astype(np.float64) for x in streams)
        moved = np.linalg.norm(theirs - ours, axis=-1) / np.maximum(np.linalg.norm(ours, axis=-1), 1e-300)
        parted = int((moved > margins).sum())
    return Flips(site, prompt, int(other.sum()), len(tokens), float(margins.max()), parted)


def _margin(logits: Array, lost: Array, taken: Array) -> float:
    logits = logits.astype(np.float64)
    size = float(np.sqrt((logits**2).mean()))
    gap = float(logits[lost].max() - logits[taken].min())
    return abs(gap) / size if size else 0.0
