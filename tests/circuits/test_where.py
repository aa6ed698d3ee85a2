"""Where a motif looks, as an expression: against row by row readings in plain Python, and what no expression may say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtrace.circuits.where import Where
from llmtrace.errors import CircuitError

PROMPTS = st.lists(st.integers(0, 4), min_size=1, max_size=12)


def plain(ids, row):
    """What each expression means in one row, by loops over positions; None: undefined."""
    earlier = [k for k in range(row) if ids[k] == ids[row]]
    before = [k for k in range(row) if row >= 1 and ids[k] == ids[row - 1]]
    return {
        "pattern[q, q - 1]": [row - 1],
        "pattern[q, q-2]": [row - 2],
        "pattern[q, self]": [row],
        "pattern[q, bos]": [0],
        "pattern[q, 3]": [3],
        "pattern[q, bos + 1]": [1],
        "pattern[q, last(token[q]) + 1]": [earlier[-1] + 1] if earlier else [],
        "pattern[q, first(token[q])]": earlier[:1],
        "pattern[q, all(token[q])]": earlier,
        "pattern[q, all(token[q]) + 1]": [k + 1 for k in earlier],
        "pattern[q, all(token[q]) - 1]": [k - 1 for k in earlier],
        "pattern[q, all(token[q - 1])]": before,
        "pattern[q, q - 2:q + 1]": [row - 2, row - 1, row] if row >= 2 else [],
        "pattern[q, last(token[q]):q]": list(range(earlier[-1], row)) if earlier else [],
    }


@given(PROMPTS)
def test_an_expression_means_what_it_says_in_every_row(ids):
    for text in plain([0], 0):
        mask = Where(text).keys(ids)
        assert mask.shape == (len(ids), len(ids))
        for row in range(len(ids)):
            inside = [k for k in plain(ids, row)[text] if 0 <= k < len(ids)]
            assert np.flatnonzero(mask[row]).tolist() == sorted(set(inside)), (text, row)


@pytest.mark.parametrize(
    "text",
    [
        "q - 1", "pattern[q]", "pattern[k, q]", "pattern[q, q - 1", "scores[q, q]", "pattern[q, q * 2]", "pattern[q, -q]", "pattern[q, q - 1.5]",
        "pattern[q, last(q)]", "pattern[q, token[q]]", "pattern[q, last(token[all(token[q])])]", "pattern[q, q:]", "pattern[q, ::2]",
        "pattern[q, open('x')]", "pattern[q, (lambda: 0)()]", "pattern[q, q + k]", "pattern[q, True]", "pattern[q, q - True]",
        "pattern[q, last(token[q], 1)]", "pattern[q, 99999999999999]", "pattern[q, __import__('os')]", "", "pattern[q, " + "(" * 150 + "q",
        "pattern[q, q" + " + 1" * 100 + "]", "pattern[q, q\x00]",
    ],
)  # fmt: skip
def test_what_is_no_place_in_a_pattern_is_refused_when_it_is_read(text):
    with pytest.raises(CircuitError, match="expression"):
        Where(text)


def test_an_expression_runs_no_code():
    with pytest.raises(CircuitError):
        Where("pattern[q, [].append(1)]")


@pytest.mark.parametrize("by", [-3, -1, 0, 1, 3])
def test_all_and_a_shift_out_of_the_prompt_leave_what_is_inside(by):
    mask = Where(f"pattern[q, all(token[q]) {'+' if by >= 0 else '-'} {abs(by)}]").keys([5, 5, 5])
    expected = {0: [], 1: [0 + by], 2: [0 + by, 1 + by]}
    for row, places in expected.items():
        assert np.flatnonzero(mask[row]).tolist() == [place for place in places if 0 <= place < 3]
