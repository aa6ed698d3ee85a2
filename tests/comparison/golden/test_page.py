"""The page of cases can be held to what is printed, and is found out where it is not."""

from __future__ import annotations

import pytest

from tests.comparison.golden.page import cases, missing, told

PRINTED = """diverges at blocks.0.attn.z: window none instead of 5
note: a long note, with an end

prompt  same top
     1     90.9%
blocks.0.attn.z  0 … 2   7.5e-01  3.1e-07
"""
NUMBERED = [heading for heading in cases() if heading[0].isdigit()]


def test_there_are_ten_cases_and_each_is_told_whole():
    assert [heading.partition(".")[0] for heading in NUMBERED] == [str(number) for number in range(1, 11)]
    for heading in NUMBERED:
        assert told(heading) and all(each.answer for each in told(heading))
        assert "**In the field.**" in cases()[heading] and "**What to do.**" in cases()[heading]


@pytest.mark.parametrize(
    "line",
    [
        "note: a long note, …",
        "1 90.9%",
        "1 88.0%",
        "blocks.0.attn.z 0 … 2 7.1e-01 9.9e-07",
        "diverges at … instead of 5",
    ],
)
def test_a_line_that_was_printed_may_be_shortened_and_its_numbers_may_be_near(line):
    assert missing([line], PRINTED) == []


@pytest.mark.parametrize(
    "line",
    [
        "note: another note, …",
        "1 70.9%",
        "2 90.9%",
        "blocks.0.attn.z 0 … 2 3.5e-01 3.1e-07",
        "diverges at … instead of 6",
        "note: a long note",
    ],
)
def test_another_word_whole_number_or_size_is_missed(line):
    assert missing([line], PRINTED) == [line]


def test_lines_come_in_the_order_in_which_they_were_printed():
    lines = ["prompt same top", "note: a long note, with an end"]
    assert missing(lines, PRINTED) == lines[1:]
    assert missing(lines[::-1], PRINTED) == []
