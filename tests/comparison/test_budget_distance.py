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


def test_no_divergence_is_less_than_nought_whatever_rounding_makes_of_it():
    """All logits moved alike, in float32."""
    random = np.random.default_rng(0)
    p = 3 * random.normal(size=(500, 7)).astype(np.float32)
    q = p + random.normal(size=(500, 1)).astype(np.float32)
    assert all(0 <= tally(held(one[None]), other[None]).kl < 1e-12 for one, other in zip(p, q, strict=True))


def test_what_was_as_likely_is_the_same():
    p = np.array([[1.0, 1.0, 0.0], [1.0, 0.9, 0.0]])
    assert of(p, p + np.array([0.0, 0.5, 0.0])).same_top == 0.5


def test_of_prompts_of_several_lengths_the_same_are_counted_in_all():
    one = tally(held(np.array([[1.0, 0.0]])), np.array([[0.0, 1.0]]))
    three = tally(held(np.eye(3)), np.eye(3))
    assert distance([one, three]).same_top == 0.75


def test_logits_that_are_far_away_or_not_finite():
    p = np.array([[0.0, 0.0]])
    assert of(p, np.array([[2000.0, 0.0]])).kl == pytest.approx(1000 - math.log(2))
    assert of(p, p + 1e4).kl == 0
    bad = tally(held(p), np.array([[np.nan, 0.0]]))
    assert (bad.kl, bad.finite) == (math.inf, False)
    both = distance([bad, tally(held(p), p)])
    assert (both.kl, both.kl_error) == (math.inf, None)


@pytest.mark.parametrize("far", [600.0, 740.0, 2000.0, 1e5])
def test_a_token_that_had_no_probability_to_speak_of_may_become_as_likely_as_any(far):
    """`[0, -far]` becomes `[0, 0]`: of two tokens the one had all of it, and now each has half; KL = ln 2."""
    p, q = np.array([[0.0, -far]], np.float32), np.zeros((1, 2), np.float32)
    one, other = of(p, q, [1]), of(p, q, [0])
    assert one.kl == pytest.approx(math.log(2), rel=1e-9)
    assert (one.rms_shift, other.rms_shift) == (pytest.approx(0.5), pytest.approx(0.5))
    assert (one.perplexity, other.perplexity) == (pytest.approx(2), pytest.approx(2))


def test_a_probability_that_grows_ninefold_moves_by_the_difference():
    p, q = (np.log([[x, 1 - x]]) for x in (0.1, 0.9))
    assert [of(p, q, [token]).rms_shift for token in (0, 1)] == pytest.approx([0.8, 0.8])
    assert of(p, q, [0]).perplexity == pytest.approx(1 / 0.9)


def test_a_token_that_is_masked_on_one_side_only():
    """With the least number of float32, as some exports have the tokens that pad a vocabulary."""
    p, q = np.array([[0.0, np.finfo(np.float32).min]], np.float32), np.zeros((1, 2), np.float32)
    assert of(p, q).kl == pytest.approx(math.log(2), rel=1e-9)
    assert of(p, p + np.array([[1.0, 0.0]], np.float32)).kl == 0


def test_a_surprise_that_is_beyond_all_numbers_is_an_infinite_perplexity():
    found = of(np.array([[0.0, 0.0]]), np.array([[0.0, -2000.0]]), [1])
    assert (found.log_ppl_ratio, found.perplexity) == (pytest.approx(2000 - math.log(2)), math.inf)
    assert perplexity([tally(held(np.array([[0.0, -2000.0]]), [1]), np.array([[0.0, 0.0]]))]) == math.inf


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


def test_of_a_text_each_prediction_counts_once_and_the_ratio_has_an_error_of_its_own():
    """Chunks of 1, 1 and 3 predictions: sums, by PyTorch; the error as that of a ratio of sums (Cochran, Sampling Techniques, 6.4)."""
    torch = pytest.importorskip("torch")
    cuts = [slice(0, 1), slice(1, 2), slice(2, 5)]
    found = distance([tally(held(P[cut], NEXT[cut]), Q[cut]) for cut in cuts])
    ours, theirs = (
        torch.nn.functional.cross_entropy(
            torch.tensor(x, dtype=torch.float64), torch.tensor(NEXT), reduction="none"
        ).numpy()
        for x in (P, Q)
    )
    assert found.perplexity == pytest.approx(math.exp(theirs.mean()))
    moved = np.exp(-theirs) - np.exp(-ours)
    assert found.rms_shift == pytest.approx(math.sqrt((moved**2).mean()))
    assert found.same_top == np.mean(P.argmax(1) == Q.argmax(1))
    assert found.log_ppl_ratio == pytest.approx((theirs - ours).mean())
    apart = [(theirs - ours)[cut].sum() - (cut.stop - cut.start) * found.log_ppl_ratio for cut in cuts]
    assert found.log_ppl_ratio_error == pytest.approx(math.sqrt(3 / 2 * np.square(apart).sum()) / 5)
    assert found.log_ppl_ratio_error != pytest.approx(found.kl_error)
