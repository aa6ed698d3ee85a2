"""From logits to distances. **Held**: what predictions are held to, one prompt or chunk of it; **tally**: sums over its predictions.

With `d` the difference of two rows of logits, `KL = ln Σ p e^(d - p·d)`: no probability is subtracted from another, so that a KL of 1e-12 has as many
digits as one of 1, and equal logits give exactly 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from attrs import frozen

from llmtrace.comparison.budget import Distance
from llmtrace.comparison.outputs import TIED
from llmtrace.schema.sites import Array

FAR = 500.0
"""`e` to more than this is not computed."""


@frozen(eq=False)
class Held:
    """Predictions of one prompt."""

    logits: Array
    """[token vocab]"""
    likely: Array
    """Their probabilities, float64, [token vocab]."""
    top: Array
    """The most likely token of each, [token]."""
    following: Array | None
    """On a text, the token that comes next, [token]."""
    surprise: Array | None
    """At that token, `-ln p`, [token]."""


@frozen
class Tally:
    """Sums over the predictions of one prompt or chunk."""

    predictions: int
    kl: float
    same: int
    surprise: float | None = None
    """Of what is held, at the tokens that come next."""
    held: float | None = None
    """Of what it is held to."""
    squares: float | None = None
    """Of the shifts of these tokens' probabilities."""

    @property
    def finite(self) -> bool:
        """Whether every logit was."""
        return math.isfinite(self.kl)


def held(logits: Array, following: Sequence[int] | None = None) -> Held:
    """What predictions are held to, from finite logits [token vocab]."""
    likely = logits.astype(np.float64)
    likely -= likely.max(1, keepdims=True)
    at = None if following is None else np.asarray(following)
    chosen = None if at is None else likely[np.arange(len(at)), at]
    np.exp(likely, out=likely)
    sums = likely.sum(1, keepdims=True)
    likely /= sums
    surprise = None if chosen is None else np.log(sums[:, 0]) - chosen
    return Held(logits, likely, logits.argmax(1), at, surprise)


def tally(held: Held, logits: Array) -> Tally:
    """Logits [token vocab] beside what they are held to."""
    rows = [_row(p, x, y) for p, x, y in zip(held.likely, held.logits, logits, strict=True)]  # each stays in the cache
    kl, shift = (np.asarray(column) for column in zip(*rows, strict=True))
    lost = held.logits[np.arange(len(rows)), held.top] - held.logits[np.arange(len(rows)), logits.argmax(1)]
    same = int((lost <= TIED).sum())
    if held.following is None or held.surprise is None:
        return Tally(len(rows), float(kl.sum()), same)
    every = np.arange(len(rows)), held.following
    gain = logits[every].astype(np.float64) - held.logits[every] - shift  # of ln p at the token that comes next
    surprise = held.surprise - gain
    moved = np.where(
        gain < 1, np.exp(-held.surprise) * np.expm1(np.minimum(gain, 1)), np.exp(-surprise) - np.exp(-held.surprise)
    )
    return Tally(
        len(rows), float(kl.sum()), same, float(surprise.sum()), float(held.surprise.sum()), float(moved @ moved)
    )


def _row(likely: Array, ours: Array, theirs: Array) -> tuple[float, float]:
    """The KL of one row, and by how much `ln Σ e^logits` grew."""
    d = theirs.astype(np.float64)
    d -= ours
    if not np.isfinite(d).all():
        return math.inf, math.nan
    mean = float(likely @ d)
    d -= mean
    if float(d.max()) > FAR:  # of a token whose probability may have been nought to a float
        grew = _total(theirs) - _total(ours)
        return max(0.0, grew - mean), grew
    kl = math.log1p(float(likely @ np.expm1(d, out=d)))
    return max(0.0, kl), mean + kl


def _total(logits: Array) -> float:
    """`ln Σ e^logits`."""
    most = float(logits.max())
    return most + math.log(float(np.exp(logits.astype(np.float64) - most).sum()))


def distance(tallies: Sequence[Tally]) -> Distance:
    """Of all prompts or chunks."""
    counts = [each.predictions for each in tallies]
    kl, kl_error = _mean([each.kl for each in tallies], counts)
    same = sum(each.same for each in tallies) / sum(counts)
    told = [(t.surprise, t.held, t.squares) for t in tallies]
    texts = [(s, h, q) for s, h, q in told if s is not None and h is not None and q is not None]
    if len(texts) < len(tallies):
        return Distance(kl, kl_error, same)
    ratio, ratio_error = _mean([s - h for s, h, _ in texts], counts)
    surprise = sum(s for s, _, _ in texts) / sum(counts)
    squares = sum(q for _, _, q in texts) / sum(counts)
    return Distance(kl, kl_error, same, ratio, ratio_error, math.sqrt(squares), _exp(surprise))


def perplexity(tallies: Sequence[Tally]) -> float | None:
    """Of what predictions are held to; None where no text was read."""
    surprises = [each.held for each in tallies if each.held is not None]
    return _exp(sum(surprises) / sum(each.predictions for each in tallies)) if surprises else None


def _exp(x: float) -> float:
    return math.exp(x) if x < FAR else math.inf


def _mean(sums: Sequence[float], counts: Sequence[int]) -> tuple[float, float | None]:
    """The mean over all predictions, and its standard error as a ratio of sums over prompts (Cochran, Sampling Techniques, 6.4)."""
    mean, n = sum(sums) / sum(counts), len(sums)
    if n < 2 or not math.isfinite(mean):
        return mean, None
    squares = sum((each - mean * count) ** 2 for each, count in zip(sums, counts, strict=True))
    return mean, math.sqrt(n / (n - 1) * squares) / sum(counts)
