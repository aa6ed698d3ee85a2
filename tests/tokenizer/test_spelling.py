"""A piece and its text go both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtrace.tokenizer.spelling import BYTE_OF, LETTER_OF, pieces, read, spelling_of
from llmtrace.trace import Token


def test_the_letters_of_bytes_are_those_of_the_library():
    alphabet = pytest.importorskip("tokenizers").pre_tokenizers.ByteLevel.alphabet()
    assert set(BYTE_OF) == set(alphabet) and sorted(BYTE_OF.values()) == list(range(256))
    assert (LETTER_OF[0x20], LETTER_OF[0x0A], LETTER_OF[0x41], LETTER_OF[0xAD]) == ("Ġ", "Ċ", "A", "Ń")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_the_first_piece_of_a_text_spells_the_text(text):
    assert read(3, pieces(text, "bytes")[0], "bytes") == Token(3, text)
    if "▁" not in text and "<0x" not in text:
        assert read(3, pieces(text, "blocks")[0], "blocks") == Token(3, text)


def test_a_byte_alone_carries_its_bytes():
    assert read(3, "ð", "bytes") == Token(3, "\ufffd", b"\xf0")
    assert read(3, "<0xF0>", "blocks") == Token(3, "\ufffd", b"\xf0")
    assert pieces("\n", "blocks") == ["\n", "\n", "<0x0A>"]


def test_what_only_a_decoder_knows_is_left_to_it():
    assert read(3, "##ing", "decoded") is None
    assert read(3, "日", "bytes") is None


def test_a_text_that_is_no_unicode_has_no_piece():
    for spelling in ("bytes", "blocks", "decoded"):
        assert pieces("caf\ud800", spelling) == []


@pytest.mark.parametrize(
    ("parts", "spelling"),
    [
        ({}, "decoded"),
        ({"decoder": None, "pre_tokenizer": {"type": "Whitespace"}}, "decoded"),
        ({"decoder": {"type": "ByteLevel"}}, "bytes"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split"}, {"type": "ByteLevel"}]}}, "bytes"),
        ({"decoder": {"type": "Metaspace"}}, "blocks"),
        (
            {
                "decoder": {
                    "type": "Sequence",
                    "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}],
                }
            },
            "blocks",
        ),
        ({"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}}, "blocks"),
        ({"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}}, "decoded"),
        ({"decoder": {"type": "WordPiece"}}, "decoded"),
    ],
)
def test_the_spelling_is_read_from_the_parts(parts, spelling):
    assert spelling_of(parts) == spelling
