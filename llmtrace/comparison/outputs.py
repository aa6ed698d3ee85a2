"""How far two models' predictions are from each other. **KLD**: `Σ p_ref (ln p_ref - ln p)`, in nats, the reference first, as llama.cpp's
perplexity tool counts it; here in float64, from all logits.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

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
    p, q = _log_softmax(reference), _log_softmax(candidate)
    each = (np.exp(p) * (p - q)).sum(-1)
    top = p.argmax(-1)
    rows = np.arange(len(top))
    shift = np.abs(np.exp(p[rows, top]) - np.exp(q[rows, top]))
    return Outputs(
        prompt,
        len(top),
        max(0.0, float(each.mean())),
        max(0.0, float(each.max())),
        int(each.argmax()),
        float((p[rows, top] - p[rows, q.argmax(-1)] <= TIED).mean()),
        float(shift.max()),
    )


def _log_softmax(logits: Array) -> Array:
    x = logits.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    found: Array = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return found
