"""Statistics over prompts, against SciPy and against what a null must give."""

import numpy as np
import pytest
from scipy import stats

from llmtrace.circuits.statistics import family_p, interval


def test_the_interval_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).gamma(2.0, size=(14, 3))
    lower, upper = interval(values, np.random.default_rng(1))
    for head in range(3):
        theirs = stats.bootstrap(
            (values[:, head],), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
        ).confidence_interval
        width = theirs.high - theirs.low
        assert lower[head] == pytest.approx(theirs.low, abs=0.03 * width)
        assert upper[head] == pytest.approx(theirs.high, abs=0.03 * width)


def test_one_heads_p_is_scipys_sign_flip_test():
    effects = np.random.default_rng(3).normal(0.4, 1.0, size=(9, 1))
    theirs = stats.permutation_test(
        (effects[:, 0],), lambda x, axis: stats.ttest_1samp(x, 0, axis=axis).statistic,
        permutation_type="samples", alternative="greater", n_resamples=np.inf,
    )  # fmt: skip
    assert family_p(effects, np.random.default_rng(0))[0] == pytest.approx(theirs.pvalue, abs=1e-12)


def test_under_the_null_one_family_in_twenty_has_a_small_p():
    random = np.random.default_rng(4)
    small = sum(family_p(random.normal(size=(8, 20)), random).min() <= 0.05 for _ in range(200))
    assert stats.binomtest(small, 200, 0.05).pvalue > 0.01


def test_a_real_effect_among_many_heads_is_found_and_only_it():
    random = np.random.default_rng(5)
    effects = random.normal(size=(16, 50))
    effects[:, 7] += 2.0
    p = family_p(effects, random)
    assert p[7] < 0.01
    assert (np.delete(p, 7) > 0.05).all()


def test_drawn_flips_never_make_a_p_of_nothing():
    assert family_p(np.full((16, 2), 5.0), np.random.default_rng(0)).tolist() == pytest.approx([2 / 4096] * 2, rel=1)
    assert family_p(np.full((16, 2), 5.0), np.random.default_rng(0)).min() >= 1 / 4096


def test_equal_effects_whose_spread_is_rounding_have_the_smallest_p_and_not_none():
    for value in np.random.default_rng(0).random(300):
        assert family_p(np.full((10, 1), value), np.random.default_rng(0)).tolist() == [1 / 1024]


def test_no_effect_at_all_has_p_one():
    assert family_p(np.zeros((8, 3)), np.random.default_rng(0)).tolist() == [1.0, 1.0, 1.0]


def test_the_same_seed_gives_the_same_numbers():
    values = np.random.default_rng(0).normal(size=(20, 4))
    for function in (interval, family_p):
        one, two = (np.asarray(function(values, np.random.default_rng(9))) for _ in range(2))
        assert (one == two).all()
