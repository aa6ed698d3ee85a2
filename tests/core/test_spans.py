"""Each token stands somewhere in the text, in bytes; what the tokenizer added, or left out, is in no span."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmtrace
from llmtrace.errors import PromptError
from llmtrace.spans import gaps, spans
from llmtrace.trace import Token

BOS, EOS = Token(1, "<s>"), Token(2, "</s>")


def of(*texts):
    """Tokens with these texts, or bytes."""
    return [
        Token(10, text) if isinstance(text, str) else Token(10, text.decode(errors="replace"), text) for text in texts
    ]


@pytest.mark.parametrize(
    ("tokens", "text", "expected"),
    [
        (of("The", " café"), "The café", [(0, 3), (3, 9)]),
        (of(b"\xf0\x9f", b"\x99\x82", "!"), "🙂!", [(0, 2), (2, 4), (4, 5)]),
        ([BOS, *of("a", "b"), EOS], "ab", [(0, 0), (0, 1), (1, 2), (2, 2)]),
        ([BOS], "", [(0, 0)]),
        ([BOS, *of(" a", "b")], "ab", [(0, 0), (0, 1), (1, 2)]),
        (of("  ", " a"), "  a", [(0, 2), (2, 3)]),
        ([BOS, BOS, *of("a")], "<s>a", [(0, 0), (0, 3), (3, 4)]),
        (of("<s>", " a"), "<s>a", [(0, 3), (3, 4)]),
        (of("c", "a", "f"), " c\ta\u2003f ", [(1, 2), (3, 4), (7, 8)]),
        ([Token(9), *of("a")], "a", [(0, 0), (0, 1)]),
    ],
)
def test_each_token_has_its_bytes(tokens, text, expected):
    assert list(spans(tokens, text)) == expected


@pytest.mark.parametrize(
    ("tokens", "text", "words"),
    [
        (of("a", "c"), "abc", "character 1, 'b', is not in them"),
        ([BOS, *of("h", b"\xc3")], "hé", "character 1, 'é'"),
        (of("a"), "ab", "character 1, 'b'"),
        ([], "a", "character 0, 'a'"),
        (of("abc"), "ABC", "character 0, 'A'"),
        (of("a", "b", "c", "d", "e", "f"), "a", "spell more than the text"),
        (of("a"), "\ud800", "not valid Unicode"),
    ],
)
def test_tokens_of_another_text_are_an_error_that_names_the_character(tokens, text, words):
    with pytest.raises(PromptError, match=words):
        spans(tokens, text)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.lists(st.integers(0, 60), max_size=12), st.booleans())
def test_cuts_anywhere_are_found_again(text, cuts, begun):
    raw = text.encode()
    ends = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    pieces = [raw[start:end] for start, end in pairwise(ends)]
    found = spans([BOS] * begun + of(*pieces), text)
    assert b"".join(raw[start:end] for start, end in found) == raw
    assert list(found[begun:]) == list(pairwise(ends))
    assert gaps(found, len(raw)) == []


def test_what_is_in_no_span_is_a_gap():
    assert gaps([(1, 2), (3, 4), (7, 8)], 9) == [(0, 1), (2, 3), (4, 7), (8, 9)]


def test_a_model_and_a_trace_give_the_tokens():
    text = "c a f e"
    with llmtrace.open("builtin:induction", backend="reference") as model:
        trace = model.trace(text, capture="logits")
        assert [text[a:b] for a, b in spans(trace.tokens, text)] == ["", "c", "a", "f", "e"]
