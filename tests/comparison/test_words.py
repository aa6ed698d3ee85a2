"""Formats, weights and fields in words."""

from __future__ import annotations

from llmtrace.comparison.formats import Tensor
from llmtrace.comparison.record import Difference
from llmtrace.comparison.words import differing, explaining, occurring, saying


def test_formats_are_named_by_how_often_they_occur_and_of_many_it_is_said_how_many():
    assert occurring(["Q8_0", "Q4_1", "Q4_1", "Q4_0"]) == ["Q4_1", "Q8_0", "Q4_0"]
    assert occurring("abcdef") == ["a", "b", "c", "3 more formats"]
    assert occurring([]) == []
    assert explaining(["F16", "Q4_0"]) == "F16 and Q4_0 explain"


def test_a_weight_is_told_by_what_was_done_or_by_how_far_off_it_is():
    worse = Tensor("blocks.0.mlp.W_in", "Q8_0", 0.35, 0.0055, 0.005, False)
    assert differing(worse) == "blocks.0.mlp.W_in is off by 3.5e-01, where Q8_0 costs 5.5e-03"
    assert differing(Tensor("embed.W_E", "F32", 0.1, 0.0, 0.1, False)) == "embed.W_E is off by 1.0e-01"
    assert differing(Tensor("embed.W_E", "F32", 0.1, 0.0, 0.1, False, "transposed")) == "embed.W_E: transposed"


def test_fields_are_told_by_the_first_and_how_many_more():
    one = Difference("ln_final.eps", "1e-05", "1e-06")
    assert saying([one]) == "its file says ln_final.eps 1e-06 instead of 1e-05"
    assert saying([one] * 3).endswith("instead of 1e-05 and 2 more fields")
