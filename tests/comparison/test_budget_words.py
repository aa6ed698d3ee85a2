"""Where the cost is, in a sentence."""

from __future__ import annotations

import math
from itertools import accumulate

from attrs import evolve

from llmtrace.comparison.budget import Distance, Swap
from llmtrace.comparison.budget_words import headline


def swaps(*costs):
    total = sum(costs) or 1.0
    return [
        Swap((f"w{place}",), "Q4_0", 32, 18, 0.1, Distance(cost, None, 1.0), cost / total, so_far / total)
        for place, (cost, so_far) in enumerate(zip(costs, accumulate(costs), strict=True))
    ]


def said(*costs, together, candidate=None):
    return headline(swaps(*costs), sum(costs), Distance(together, None, 1.0), candidate)


def test_few_weights_that_cost_most_are_named():
    assert said(0.5, 0.2, 0.15, *[0.01] * 15, together=1.2, candidate=Distance(1.25, None, 1.0)) == (
        "3 of 18 weights that differ cost 85% of the KL: w0, w1, w2; all at once come to 1.2 nats, 20% more than the sum of 1 nats; the candidate "
        "itself is at 1.25 nats"
    )
    assert said(0.9, 0.1, together=0.5).startswith(
        "1 of 2 weights that differ costs 90% of the KL: w0; all at once come to 0.5 nats, 50% less than"
    )


def test_of_five_the_first_three_are_named():
    assert said(*[0.2] * 5, together=1.0).startswith(
        "4 of 5 weights that differ cost 80% of the KL: w0, w1, w2 and 1 more; all at once come to 1 nats, as much as"
    )


def test_ten_are_few_and_eleven_are_not():
    assert said(*[0.08] * 10, *[0.01] * 20, together=1.0).startswith(
        "10 of 30 weights that differ cost 80% of the KL: w0, w1, w2 and 7 more; all at once"
    )
    assert said(*[0.08] * 9, *[0.04] * 7, together=1.0).startswith(
        "no few weights cost most: the dearest 10 of 16 cost 76% of the KL (w0, w1, w2 …), and 11 cost 80%"
    )


def test_the_only_weight_is_not_said_to_be_one_of_one():
    assert said(0.5, together=0.5).startswith(
        "the only weight that differs costs 100% of the KL: w0; all at once come to"
    )


def test_a_sum_is_told_to_the_percent():
    for together, words in (
        (1.03, "3% more than the sum"),
        (0.97, "3% less than the sum"),
        (1.004, "as much as the sum"),
    ):
        assert f" nats, {words} of 1 nats" in said(0.9, 0.1, together=together)


def test_where_all_at_once_compute_nothing_finite_that_is_said_and_no_share_of_it():
    found = said(0.9, 0.1, together=math.inf, candidate=Distance(0.5, None, 1.0))
    assert found.endswith(
        "w0; with all at once the reference computes numbers that are not finite; the candidate itself is at 0.5 nats"
    )


def test_tied_weights_are_named_together():
    (swap,) = swaps(1.0)
    found = headline([evolve(swap, names=("a", "b"))], 1.0, Distance(1.0, None, 1.0), None)
    assert "100% of the KL: a with b; all at once" in found


def test_where_no_few_cost_most_it_says_so():
    assert said(*[0.01] * 100, together=1.0).startswith(
        "no few weights cost most: the dearest 10 of 100 cost 10% of the KL (w0, w1, w2 …), and 80 cost 80%"
    )


def test_what_costs_nothing():
    assert (
        said(together=0.0, candidate=Distance(0.01, None, 1.0))
        == "no weight differs from the reference's; the candidate itself is at 0.01 nats"
    )
    assert said(0.0, 0.0, together=0.0) == "no weight that differs moves any prediction"
