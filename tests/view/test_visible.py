"""Tokens made safe to look at."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from llmtrace.view.visible import BASE, escape, named, quoted, runs, shapeless

ANY = st.text(st.characters(codec=None, exclude_categories=()))  # surrogates and unassigned ones too


def test_what_moves_or_hides_others_is_shapeless():
    for (
        character
    ) in "\x00\x1b\x7f\x85\u200b\u200d\u202e\u2028\u2066\ufeff\u00ad\u00a0\ufe0f\u3164\U000e0041\ud83d\ue000":
        assert shapeless(character), hex(ord(character))


def test_letters_signs_and_the_blank_have_a_shape():
    assert not any(shapeless(character) for character in " aé中א∑🙂<>&\"'\\")


@given(ANY)
def test_nothing_shapeless_is_left_in_a_shown_token(text):
    for shown in (quoted(text), "".join(runs(text))):
        assert not any(unicodedata.category(c)[0] in "CZ" and c != " " for c in shown)
        assert shown.encode("utf-8").decode("utf-8") == shown
    assert " " not in "".join(runs(text))


@given(ANY)
def test_quoting_can_be_undone_so_two_texts_never_look_alike(text):
    literal = quoted(text)
    assert literal[0] == literal[-1] == '"'
    assert eval(literal, {"__builtins__": {}}) == text  # noqa: S307  (the quoted form is a Python literal: that is the claim)


@given(ANY)
def test_plain_runs_hold_exactly_the_characters_that_have_a_shape(text):
    plain = "".join(runs(text)[::2])
    marks = runs(text)[1::2]
    assert all(marks)
    kept = [c for c in text if c != " " and not shapeless(c)]
    assert list(plain) == kept[len(kept) - len(plain) :]
    assert len(kept) - len(plain) in (0, 1)


def test_an_accent_alone_stands_on_a_ring():
    assert runs("\u0301a") == ["", BASE, "\u0301a"]


def test_bytes_stand_for_a_token_that_is_half_a_character():
    assert runs("\ufffd", bytes([0xE2, 0x96])) == ["", "‹E2 96›"]


def test_a_token_without_text_is_named_by_its_id():
    assert named("", 7) == "token 7"
    assert named(" Paris", 7) == '" Paris"'


def test_escapes_are_those_of_python():
    assert [escape(c) for c in "\x1b\u202e\U000e0001"] == ["\\x1b", "\\u202e", "\\U000e0001"]
