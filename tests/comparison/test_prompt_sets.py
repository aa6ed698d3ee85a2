"""The built-in prompts: each has its purpose, the full set reaches what the quick one does not, and none is invisible."""

from __future__ import annotations

import unicodedata

import pytest

from llmtrace.comparison.prompt_sets import FULL, QUICK, SETS, prompt_set
from llmtrace.errors import OptionError

SCRIPTS = {
    "cyrillic": "CYRILLIC", "arabic": "ARABIC", "hebrew": "HEBREW", "devanagari": "DEVANAGARI", "chinese": "CJK", "japanese": "HIRAGANA",
}  # fmt: skip


def test_each_has_a_name_of_its_own_a_purpose_and_a_source():
    assert set(SETS) == {"quick", "full"}
    assert FULL[: len(QUICK)] == QUICK
    assert len({each.name for each in FULL}) == len({each.text for each in FULL}) == len(FULL)
    assert all(each.name and each.purpose and each.source for each in FULL)


@pytest.mark.parametrize(("name", "script"), SCRIPTS.items())
def test_a_script_s_prompt_is_written_in_it(name, script):
    (probe,) = [each for each in FULL if each.name == name]
    letters = [unicodedata.name(c) for c in probe.text if unicodedata.category(c)[0] in "LM"]
    assert sum(letter.startswith(script) for letter in letters) > (0.4 if name == "japanese" else 0.99) * len(letters)
    assert "article 1" in probe.source


def test_the_quick_set_is_short_and_the_full_one_has_a_long_prompt_and_a_far_repetition():
    assert max(len(each.text) for each in QUICK) < 100
    texts = {each.name: each.text for each in FULL}
    assert len(texts["long"].split()) > 300
    words = texts["far repeats"].split()
    period = words.index(words[0], 1)
    assert period > 15
    assert words == words[:period] * (len(words) // period)
    assert len(words) // period > 4


def test_the_quick_set_has_a_sequence_that_comes_again():
    (probe,) = [each for each in QUICK if each.name == "repeats"]
    words = probe.text.split()
    period = words.index(words[0], 1)
    assert len(words) == 2 * period - 1  # the last word of the second time is what is to be predicted
    assert all(words[at] == words[at - period] for at in range(period, len(words)))


def test_a_set_that_there_is_not_is_refused_by_name():
    assert (prompt_set("quick"), prompt_set("full")) == (QUICK, FULL)
    with pytest.raises(OptionError, match="no set of prompts called 'fool'; there are quick, full"):
        prompt_set("fool")
