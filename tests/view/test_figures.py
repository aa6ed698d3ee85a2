"""Numbers for people say something, however small they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtrace.view.figures import probability, ranks


@given(st.floats(0, 1))
def test_a_probability_is_within_half_a_percent_of_what_is_written(value):
    assert float(probability(value)) == pytest.approx(value, rel=5e-3, abs=1e-320)
    assert (probability(value) == "0") == (value == 0)


def test_a_shared_rank_is_a_span():
    assert (ranks((3, 3)), ranks((3, 5))) == ("3", "3-5")
