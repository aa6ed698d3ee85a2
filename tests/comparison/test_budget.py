"""What follows from the fields of a budget, by hand."""

from __future__ import annotations

import pytest

from llmtrace.comparison.budget import Budget, Distance, Swap


def at(kl):
    return Distance(kl, None, 1.0)


def budget(together, total, candidate=None):
    return Budget("", 1, 1, None, None, (), total, at(together), candidate, None)


def test_what_a_weight_costs_for_each_mebibyte():
    """Half a nat for two MiB."""
    swap = Swap(("w",), "Q8_0", 1, 2 * 1024 * 1024, 0.1, at(0.5), 1.0, 1.0)
    assert swap.kl_per_mebibyte == 0.25
    assert Swap(("w",), "?", 1, None, 0.1, at(0.5), 1.0, 1.0).kl_per_mebibyte is None


@pytest.mark.parametrize(
    ("together", "total", "excess", "relative"), [(1.5, 1.0, 0.5, 0.5), (0.5, 2.0, -1.5, -0.75), (0.0, 0.0, 0.0, None)]
)
def test_costs_do_not_add_up_and_the_excess_is_a_share_of_their_sum(together, total, excess, relative):
    found = budget(together, total)
    assert (found.excess, found.relative_excess) == (excess, relative)


@pytest.mark.parametrize(("candidate", "rest"), [(1.75, 0.25), (1.25, -0.25)])
def test_the_rest_is_what_a_runtime_adds_to_all_weights_at_once(candidate, rest):
    assert budget(1.5, 1.0, at(candidate)).rest == rest
    assert budget(1.5, 1.0).rest is None
