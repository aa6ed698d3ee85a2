"""A prompt is a text or a list of ids; a target is exactly one token, and no space is guessed."""

import numpy as np
import pytest

from llmtrace.errors import PromptError
from llmtrace.tokens import encode_prompt, in_front, one_token
from llmtrace.trace import Token

WORDS = ["<bos>", "a", " b", "ab", "�"]


class Greedy:
    """Longest word first; the last one is a byte that is no text alone."""

    def encode(self, text, *, special=True):
        ids = [0] if special else []
        while text:
            word = max((word for word in WORDS[1:4] if text.startswith(word)), key=len, default=None)
            ids.append(4 if word is None else WORDS.index(word))
            text = text[1 if word is None else len(word) :]
        return ids

    def token(self, id):
        return Token(id, WORDS[id], b"\xff" if id == 4 else None)


def test_a_text_is_encoded_with_the_special_tokens_of_its_tokenizer():
    assert [token.text for token in encode_prompt("ab b", Greedy(), 5, None)] == ["<bos>", "ab", " b"]


def test_ids_are_taken_as_they_are_whatever_holds_them():
    assert encode_prompt(np.array([3, 1]), None, 5, None) == (Token(3), Token(1))


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("text", "no tokenizer"),
        ([], "empty"),
        ([5], r"id 5 is outside .*0 … 4"),
        ([-1], "id -1"),
        ([1.0], "a list of token ids"),
        (["1"], "a list of token ids"),
        (7, "a list of token ids"),
        ([0] * 9, "9 tokens, over the model's context of 8"),
    ],
)
def test_a_prompt_that_cannot_be_run_is_an_error_that_says_why(prompt, words):
    with pytest.raises(PromptError, match=words):
        encode_prompt(prompt, None, 5, 8)


def test_a_target_is_one_token_by_text_or_id():
    assert one_token(" b", Greedy(), 5).id == 2
    assert one_token(np.int64(2), Greedy(), 5).text == " b"
    assert one_token(2, None, 5) == Token(2)


class Strict(Greedy):
    """Says no bytes."""

    def token(self, id):
        return Token(id, WORDS[id])


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("b", "'b' is not one token"),
        ("aa", r"is not one token but 'a' · 'a'"),
        ("", "nothing"),
        (5, "id 5"),
        (1.5, "token ids"),
    ],
)
def test_a_target_that_is_not_one_token_shows_its_tokens(target, words):
    with pytest.raises(PromptError, match=words):
        one_token(target, Strict(), 5)


class Plain:
    """Of a tokenizer that adds nothing."""

    def encode(self, text, *, special=True):
        return [ord(letter) % 16 for letter in text]


class Both(Plain):
    """Of one that adds two tokens in front and one behind."""

    def encode(self, text, *, special=True):
        return [14, 15, *super().encode(text), 2] if special else super().encode(text)


class Speechless(Plain):
    """Of one whose vocabulary spells nothing."""

    def encode(self, text, *, special=True):
        raise PromptError("nothing can be spelled")


def test_what_a_tokenizer_puts_in_front():
    assert in_front(Greedy()) == [0]
    assert (in_front(Plain()), in_front(Both()), in_front(None), in_front(Speechless())) == ([], [14, 15], [], [])
