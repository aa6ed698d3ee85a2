"""One candidate over several prompts: the worst site of each, and the spread, by NumPy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from llmtrace.comparison.by_prompt import PromptErrors, prompt_errors, spread
from llmtrace.comparison.outputs import Outputs
from llmtrace.comparison.record import SiteError


def sites(*rows):
    return {row[0]: SiteError(row[0], *row[1:]) for row in rows}


FOUND = sites(
    ("embed", "holds", 1e-3, 1e-3, 1e-2),
    ("blocks.0.attn.v", "violated", 4e-6, 9e-6, 1e-6),
    ("blocks.0.resid_post", "holds", 0.0, 0.0, 1e-6, None, 0.25),
    ("blocks.10.resid_post", "holds", 0.0, 0.0, 1e-6, None, 0.5),
    ("blocks.9.resid_post", "holds", 0.0, 0.0, 1e-6, None, 0.75),
    ("logits", "unchecked", 9.0, 9.0, 1e-6, None, 1.0),
)


def test_the_worst_site_is_the_one_that_is_most_beyond_rounding_and_the_last_block_s_stream_is_told():
    found = prompt_errors(2, FOUND)
    assert (found.prompt, found.site, found.local_error, found.tolerance) == (2, "blocks.0.attn.v", 4e-6, 1e-6)
    assert (found.times, found.inherited_error) == (pytest.approx(4.0), 0.5)


def test_what_cannot_be_compared_is_infinitely_beyond_and_what_is_nothing_is_not():
    assert (
        prompt_errors(0, sites(("a", "violated", math.inf, math.inf, 0.0), ("b", "holds", 0.0, 0.0, 0.0))).times
        == math.inf
    )
    assert prompt_errors(0, sites(("b", "holds", 0.0, 0.0, 0.0))).times == 0
    assert prompt_errors(1, {}) == PromptErrors(1, "", 0.0, 0.0, 0.0, None)


def test_the_spread_is_that_of_statistics():
    values = [0.11, 0.32, 0.05, 0.5]
    made = [Outputs(at, 10 * (at + 1), kld, 2 * kld, 0, 1 - kld, kld / 3) for at, kld in enumerate(values)]
    found = {each.quantity: each for each in spread(made, [])}
    assert set(found) == {"mean_kld", "worst_kld", "same_top", "largest_shift"}
    for name, scale, offset in (
        ("mean_kld", 1, 0),
        ("worst_kld", 2, 0),
        ("same_top", -1, 1),
        ("largest_shift", 1 / 3, 0),
    ):
        x, each = scale * np.array(values) + offset, found[name]
        assert each.prompts == 4
        assert (each.mean, each.least, each.most) == pytest.approx((x.mean(), x.min(), x.max()))
        assert (each.deviation, each.standard_error) == pytest.approx((x.std(ddof=1), x.std(ddof=1) / 2))


def test_a_prompt_counts_once_however_long_it_is():
    two = [Outputs(0, 1000, 0.0, 0.0, 0, 1.0, 0.0), Outputs(1, 10, 1.0, 1.0, 0, 0.0, 1.0)]
    (kld, *_) = spread(two, [])
    assert (kld.mean, kld.deviation, kld.standard_error) == pytest.approx((0.5, math.sqrt(0.5), 0.5))


def test_only_what_was_found_is_spread_and_nought_is_found():
    """Of three prompts one has no site that could be judged, and one no stream to inherit from."""
    prompts = [
        PromptErrors(0, "", 0.0, 0.0, 0.0, 0.0),
        PromptErrors(1, "a", 3.0, 1.0, 3.0, None),
        PromptErrors(2, "a", 0.0, 1.0, 0.0, 0.5),
    ]
    times, inherited = spread([], prompts)
    assert (times.quantity, times.prompts, times.mean, times.least) == ("times", 2, 1.5, 0.0)
    assert (inherited.quantity, inherited.prompts, inherited.mean, inherited.least) == ("inherited_error", 2, 0.25, 0.0)


def test_one_prompt_has_no_deviation_and_an_infinite_one_hides_nothing():
    (times,) = spread([], [PromptErrors(0, "a", 2.0, 1.0, 2.0, None)])
    assert (times.mean, times.deviation, times.standard_error) == (2.0, None, None)
    two = [PromptErrors(0, "a", 2.0, 1.0, 2.0, 0.5), PromptErrors(1, "a", math.inf, 1.0, math.inf, 0.5)]
    times, inherited = spread([], two)
    assert (times.mean, times.deviation, times.least, times.most) == (math.inf, math.inf, 2.0, math.inf)
    assert (inherited.quantity, inherited.prompts, inherited.deviation) == ("inherited_error", 2, 0.0)
