"""How far predictions are from each other: by PyTorch, by decimals, by hand."""

from __future__ import annotations

import math
from decimal import Decimal, getcontext

import numpy as np
import pytest

from llmtrace.comparison.budget_distance import distance, held, perplexity, tally

RANDOM = np.random.default_rng(2)
P = 3 * RANDOM.normal(size=(5, 11)).astype(np.float32)
Q = P + 0.3 * RANDOM.normal(size=(5, 11)).astype(np.float32)
NEXT = [3, 0, 10, 7, 7]


def of(p, q, following=None):
    return distance([tally(held(p, following), q)])


def test_the_divergence_is_pytorch_s_and_so_are_perplexities():
    torch = pytest.importorskip("torch")
    p, q = (torch.tensor(x, dtype=torch.float64) for x in (P, Q))
    kl = torch.nn.functional.kl_div(q.log_softmax(-1), p.log_softmax(-1), log_target=True, reduction="batchmean")
    theirs, ours = (torch.nn.functional.cross_entropy(x, torch.tensor(NEXT)) for x in (q, p))
    found = of(P, Q, NEXT)
    assert found.kl == pytest.approx(float(kl), rel=1e-12)
    assert found.log_ppl_ratio == pytest.approx(float(theirs - ours), rel=1e-12)
    assert found.perplexity == pytest.approx(math.exp(theirs), rel=1e-12)
    assert perplexity([tally(held(P, NEXT), Q)]) == pytest.approx(math.exp(ours), rel=1e-12)
    moved = q.softmax(-1)[range(5), NEXT] - p.softmax(-1)[range(5), NEXT]
    assert found.rms_shift == pytest.approx(float((moved**2).mean().sqrt()), rel=1e-12)
    assert found.same_top == np.mean(P.argmax(1) == Q.argmax(1))


def test_without_a_text_there_is_no_perplexity():
    found = of(P, Q)
    assert (found.log_ppl_ratio, found.perplexity, found.rms_shift) == (None, None, None)
    assert perplexity([tally(held(P), Q)]) is None
    assert found.kl == of(P, Q, NEXT).kl


def test_the_same_is_exactly_nought():
    found = of(P, P.copy(), NEXT)
    assert (found.kl, found.same_top, found.log_ppl_ratio, found.rms_shift) == (0.0, 1.0, 0.0, 0.0)


@pytest.mark.parametrize("size", [1e-7, 1e-4, 1.0, 30.0])
def test_a_small_divergence_has_as_many_digits_as_a_large_one(size):
    """Held to a sum in 60 decimal places."""
    getcontext().prec = 60
    p = np.array([[0.5, -1.25, 3.0, 0.0]])
    q = p + size * np.array([[1.0, -2.0, 0.5, 0.25]])
    a, b = ([Decimal(float(x)).exp() for x in row] for row in (p[0], q[0]))
    kl = sum(x / sum(a) * ((x / sum(a)).ln() - (y / sum(b)).ln()) for x, y in zip(a, b, strict=True))
    assert of(p, q).kl == pytest.approx(float(kl), rel=1e-8)


def test_what_was_as_likely_is_the_same():
    p = np.array([[1.0, 1.0, 0.0], [1.0, 0.9, 0.0]])
    assert of(p, p + np.array([0.0, 0.5, 0.0])).same_top == 0.5


def test_logits_that_are_far_away_or_not_finite():
    p = np.array([[0.0, 0.0]])
    assert of(p, np.array([[2000.0, 0.0]])).kl == pytest.approx(1000 - math.log(2))
    assert of(p, p + 1e4).kl == 0
    bad = tally(held(p), np.array([[np.nan, 0.0]]))
    assert (bad.kl, bad.finite) == (math.inf, False)


def test_means_are_over_predictions_and_errors_over_prompts():
    """Of prompts of one length, the standard error is that of their means; of others, that of a ratio."""
    parts = [(P[:2], Q[:2]), (P[2:4], Q[2:4]), (Q[:2], P[:2])]
    found = distance([tally(held(p), q) for p, q in parts])
    means = [of(p, q).kl for p, q in parts]
    assert found.kl == pytest.approx(np.mean(means))
    assert found.kl_error == pytest.approx(np.std(means, ddof=1) / math.sqrt(3))
    assert distance([tally(held(P), Q)]).kl_error is None
    unlike = distance([tally(held(P[:1]), Q[:1]), tally(held(P[1:]), Q[1:])])
    assert unlike.kl == pytest.approx(of(P, Q).kl)
    one, four = of(P[:1], Q[:1]).kl, 4 * of(P[1:], Q[1:]).kl
    by_hand = math.sqrt(2 * ((one - unlike.kl) ** 2 + (four - 4 * unlike.kl) ** 2)) / 5
    assert unlike.kl_error == pytest.approx(by_hand)
