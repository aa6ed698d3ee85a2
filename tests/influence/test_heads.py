"""Named head scores: known answers of the hand-built model, and rows counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from llmtrace.circuits import built_in
from llmtrace.influence import influence
from llmtrace.influence.heads import behaviour_keys, head_scores


def table(found):
    return {(score.name, score.layer, score.head): score for score in found.table}


@pytest.mark.parametrize("prompt", ["a b c d e a b c d e", "a b c d e f g h i j k l " * 3, "d a c b " * 20])
def test_the_hand_built_heads_do_what_they_were_built_for(hand, prompt):
    scores = table(influence(hand, prompt, ("attention",))[0])
    assert scores["previous-token", 0, 0].score == pytest.approx(1, abs=5e-4)
    assert scores["induction", 1, 0].score == pytest.approx(1, abs=5e-4)
    length = len(prompt.split()) + 1
    assert scores["previous-token", 0, 0].rows == length - 1
    assert scores["induction", 1, 0].rows == length - 1 - len(set(prompt.split()))
    mean = scores["previous-token", 0, 1]
    assert mean.score == pytest.approx(mean.chance) == pytest.approx(np.mean([1 / (q + 1) for q in range(1, length)]))


def test_the_duplicate_token_head_shares_its_mass_between_both_occurrences(hand):
    scores = table(influence(hand, "a b c d e f g h i j k l a b c d e f g h i j k l", ("attention",))[0])
    assert scores["duplicate-token", 1, 1].score == pytest.approx(0.4975, abs=0.005)


def test_what_is_nowhere_defined_is_none_and_not_zero(hand):
    scores = table(influence(hand, "a b c", ("attention",))[0])
    for name in ("induction", "duplicate-token"):
        assert (scores[name, 0, 0].score, scores[name, 0, 0].chance, scores[name, 0, 0].rows) == (None, None, 0)
    alone = table(influence(hand, [0], ("attention",))[0])
    assert {score.score for score in alone.values()} == {None}
    assert {name for name, _, _ in alone} == set(built_in())


def test_keys_are_those_that_the_definitions_name():
    keys = behaviour_keys([7, 8, 7, 8, 8])
    named = {
        name: {q: np.flatnonzero(row).tolist() for q, row in enumerate(mask) if row.any()}
        for name, mask in keys.items()
    }
    assert named == {
        "previous-token": {1: [0], 2: [1], 3: [2], 4: [3]},
        "induction": {2: [1], 3: [2], 4: [2, 4]},
        "duplicate-token": {2: [0], 3: [1], 4: [1, 3]},
        "first-token": {0: [0], 1: [0], 2: [0], 3: [0], 4: [0]},
        "self": {0: [0], 1: [1], 2: [2], 3: [3], 4: [4]},
        "local-window": {},
    }


def test_rows_whose_keys_a_window_hides_do_not_count():
    pattern = np.zeros((1, 5, 5))
    for q in range(5):
        pattern[0, q, max(0, q - 1) : q + 1] = 1 / len(range(max(0, q - 1), q + 1))
    by_name = {score.name: score for score in head_scores(0, pattern, behaviour_keys([7, 8, 7, 8, 8]), window=2)}
    first = by_name["first-token"]
    assert (first.score, first.rows, first.chance) == (0.5, 1, 0.5)  # only query 1 still sees position 0
    induction = by_name["induction"]  # of query 4's keys 2 and 4, the window shows 4
    assert (induction.score, induction.rows, induction.chance) == (0.5, 3, 0.5)
    assert by_name["duplicate-token"].rows == 1
