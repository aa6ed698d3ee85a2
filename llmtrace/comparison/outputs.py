"""How far two models' predictions are from each other. **KLD**: `Σ p_ref (ln p_ref - ln p)`, in nats, the reference first, as llama.cpp's
perplexity tool counts it; here in float64, from all logits.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from llmtrace.schema.functions import log_softmax
from llmtrace.schema.sites import Array

TIED = 1e-6
"""Nats by which two tokens may differ and be equally likely."""


@frozen
class Outputs:
    """The predictions of one prompt beside the reference's."""

    prompt: int
    """Which one, from 0."""
    tokens: int
    """Predictions compared."""
    mean_kld: float
    """In nats."""
    worst_kld: float
    """Of one token."""
    worst_token: int
    """Its index."""
    same_top: float
    """Share of tokens after which the candidate predicts what the reference does, or what is as likely there."""
    largest_shift: float
    """The most that the probability of one of the reference's predictions moved."""


def outputs(prompt: int, reference: Array, candidate: Array) -> Outputs | None:
    """Compare logits [token vocab]; None where they are not finite or not of one shape."""
    if reference.shape != candidate.shape or not (np.isfinite(reference).all() and np.isfinite(candidate).all()):
        return None
    rows = [_row(p, q) for p, q in zip(reference, candidate, strict=True)]  # one at a time, as stays in the cache
    kld, kept, shift = (np.asarray(column) for column in zip(*rows, strict=True))
    return Outputs(
        prompt,
        len(rows),
        max(0.0, float(kld.mean())),
        max(0.0, float(kld.max())),
        int(kld.argmax()),
        float(kept.mean()),
        float(shift.max()),
    )


def _row(reference: Array, candidate: Array) -> tuple[float, bool, float]:
    """Of one token: the KLD, whether the prediction stays, and by how much its probability moves."""
    p, q = log_softmax(reference), log_softmax(candidate)
    likely = np.exp(p)
    top = int(p.argmax())
    kept = bool(p[top] - p[q.argmax()] <= TIED)
    return float(likely @ (p - q)), kept, float(abs(likely[top] - np.exp(q[top])))
