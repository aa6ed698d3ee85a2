"""Two readings of one text: where they part, in tokens and in bytes, and what the usual differences are called."""

from __future__ import annotations

import pytest

from llmtrace.comparison.tokens import read_by, read_by_both, token_difference
from llmtrace.errors import PromptError
from llmtrace.trace import Token

BOS, EOS = Token(0, "<bos>"), Token(1, "<eos>")
TEXT = "the café"
READ = (Token(5, "the"), Token(6, " caf"), Token(7, "é"))


def what(reference, candidate):
    found = token_difference(2, TEXT, reference, candidate)
    return None if found is None else (found.index, found.byte, found.what)


def test_the_same_ids_are_no_difference_whatever_their_texts():
    assert token_difference(0, TEXT, READ, [Token(token.id, "?") for token in READ]) is None


def test_a_token_in_front_or_at_the_end():
    assert what([BOS, *READ], READ) == (0, 0, "'<bos>' is not put in front")
    assert what(READ, [BOS, *READ]) == (0, 0, "'<bos>' is put in front")
    assert what([BOS, *READ], [BOS, BOS, *READ])[2] == "'<bos>' is put in front twice"
    assert what([*READ, EOS], READ) == (3, 9, "'<eos>' is not put at the end")
    assert what(READ, [*READ, EOS]) == (3, 9, "'<eos>' is put at the end")


def test_another_split_is_told_with_its_place_in_bytes():
    other = [Token(5, "the"), Token(6, " caf"), Token(8, "\ufffd", b"\xc3"), Token(9, "\ufffd", b"\xa9")]
    found = token_difference(0, TEXT, READ, other)
    assert (found.index, found.byte, found.reference, found.candidate) == (2, 7, READ[2], other[2])
    assert found.what == "'\ufffd' instead of 'é'"


def test_the_same_texts_under_other_ids():
    assert what(READ, [READ[0], Token(60, " caf"), READ[2]]) == (1, 3, "the same texts under other ids")


def test_one_that_stops_early_and_a_token_without_a_text():
    assert what(READ, READ[:1]) == (1, 3, "nothing more instead of ' caf'")
    assert what(READ, [READ[0], Token(99), READ[2]])[2] == "token 99 instead of ' caf'"


def test_tokens_that_do_not_spell_the_text_have_no_place_in_it():
    lower = (Token(5, "THE"), Token(6, " CAF"))
    assert token_difference(0, TEXT, lower, [Token(5, "THE")]).byte is None


class Letters:
    """A token a letter, and no other."""

    def encode(self, text, *, special=True):
        if "é" in text:
            raise PromptError("é is not in the vocabulary.")
        return [ord(each) for each in text]

    def token(self, id):
        return Token(id, chr(id))


def test_a_text_is_read_or_it_is_said_why_not():
    assert read_by(Letters(), "ab") == (Token(97, "a"), Token(98, "b"))
    assert read_by(Letters(), TEXT) == "é is not in the vocabulary."


class Begun(Letters):
    """The same, with a token in front."""

    def encode(self, text, *, special=True):
        return [ord("^"), *super().encode(text)]


def test_both_tokenizers_read_each_text_that_the_reference_can_read():
    found = read_by_both(Begun(), Letters(), [(0, "ab"), (1, TEXT), (None, "c")])
    assert [(each.prompt, each.text, each.what) for each in found.differences] == [
        (0, "ab", "'^' is not put in front"),
        (None, "c", "'^' is not put in front"),
    ]
    assert found.not_compared == ""
    assert read_by_both(Letters(), Letters(), [(0, "ab")]).differences == ()


@pytest.mark.parametrize(
    ("reference", "candidate", "why"),
    [
        (None, Letters(), "the reference has no tokenizer"),
        (Letters(), None, "the candidate has no tokenizer"),
        (None, None, "the reference and the candidate have no tokenizer"),
        (Letters(), Letters(), "the reference's tokenizer can read none of the built-in texts"),
    ],
)
def test_where_no_text_is_read_by_both_it_is_said_why(reference, candidate, why):
    found = read_by_both(reference, candidate, [(None, TEXT)])
    assert (found.differences, found.not_compared) == ((), why)
