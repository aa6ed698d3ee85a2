"""Other experts are counted as sets, with how near the choice was and whether the token had parted before; by hand."""

from __future__ import annotations

import numpy as np
import pytest

from llmtrace.comparison.flips import Flips, flips

ROUTER = np.array([[3.0, 2.0, 1.0, 0.0], [2.0, 1.9, 1.8, 0.0], [1.0, 1.0, 0.0, 0.0]])
OURS = np.array([[0, 1], [0, 1], [0, 1]])


def test_the_same_experts_in_another_order_are_the_same():
    assert flips("s", 0, OURS, OURS[:, ::-1], ROUTER, None) is None


def test_a_choice_of_another_expert_has_a_margin():
    theirs = np.array([[0, 1], [2, 0], [0, 3]])
    size = np.sqrt((ROUTER**2).mean(1))
    found = flips("s", 2, OURS, theirs, ROUTER, None)
    assert found == Flips("s", 2, experts=2, tokens=2, margin=pytest.approx(1.0 / size[2]), parted=0)


def test_a_token_that_was_off_by_more_than_the_margin_had_parted_before():
    theirs = np.array([[0, 1], [2, 0], [0, 3]])  # margins 0.06 and 1.41
    stream = np.ones((3, 4))
    moved = stream + np.array([[0.0], [0.1], [0.1]])
    assert flips("s", 0, OURS, theirs, ROUTER, (stream, moved)).parted == 1
    assert flips("s", 0, OURS, theirs, ROUTER, (stream, stream)).parted == 0


def test_choices_of_another_number_are_not_compared():
    assert flips("s", 0, OURS, OURS[:, :1], ROUTER, None) is None
