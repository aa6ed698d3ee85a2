"""The word-level reader says what the `tokenizers` library says of the same file, but for words that are not there."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtrace.data import embedded
from llmtrace.errors import PromptError
from llmtrace.testing import handmade
from llmtrace.tokenizer import open_tokenizer
from llmtrace.tokenizer.words import WordTokenizer, reads
from llmtrace.trace import Token

tokenizers = pytest.importorskip("tokenizers")

SHIPPED = embedded("induction")
LIBRARY = tokenizers.Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))
OURS, NOTE = open_tokenizer(SHIPPED)
BLANKS = [" ", "  ", "\t", "\n", "\r\n", "\xa0", "\u2003", "\u3000", "\x85"]
GLUE = ["", *BLANKS, "\x1c", "\u200b"]
"""The last two are no blanks to Unicode, whatever `str.split` thinks of the first."""

words = st.sampled_from([*handmade.LETTERS, "<bos>"])
texts = st.lists(st.tuples(words, st.sampled_from(BLANKS))).map(
    lambda pairs: "".join(word + blank for word, blank in pairs)
)
anything = st.lists(
    st.tuples(st.sampled_from([*handmade.LETTERS, "<bos>", "q", "<", "ab"]), st.sampled_from(GLUE))
).map(lambda pairs: "".join(word + blank for word, blank in pairs))


def test_the_embedded_tokenizer_is_read_by_the_core_itself():
    assert isinstance(OURS, WordTokenizer)
    assert NOTE == ""


@given(texts, st.booleans())
def test_ids_are_the_librarys(text, special):
    assert OURS.encode(text, special=special) == LIBRARY.encode(text, add_special_tokens=special).ids


@given(anything)
def test_a_text_is_refused_exactly_where_the_library_falls_back_to_unknown(text):
    tokens = LIBRARY.encode(text, add_special_tokens=False).tokens
    if tokens.count("<bos>") == text.count("<bos>"):  # the file's unknown token is <bos>
        assert OURS.encode(text, special=False) == [LIBRARY.token_to_id(token) for token in tokens]
    else:
        with pytest.raises(PromptError, match="is not in the vocabulary"):
            OURS.encode(text)


def test_every_token_has_the_librarys_text():
    assert [OURS.token(id) for id in range(16)] == [Token(id, LIBRARY.id_to_token(id)) for id in range(16)]
    assert [OURS.find(LIBRARY.id_to_token(id)) for id in range(16)] == list(range(16))


def test_an_id_without_a_token_has_no_text():
    assert OURS.token(16) == Token(16)


def test_an_unknown_word_is_named_with_near_words_and_all_that_there_are():
    with pytest.raises(
        PromptError,
        match=r"The word 'aa' is not in the vocabulary of this model\. Did you mean a\? Its words are <bos> a b",
    ):
        OURS.encode("c aa f")


def test_a_large_vocabulary_is_not_listed():
    large = WordTokenizer({f"word{i}": i for i in range(1000)}, ())
    with pytest.raises(PromptError, match="Did you mean word1") as caught:
        large.encode("wrd1")
    assert "Its words are" not in str(caught.value)


def test_a_template_may_put_tokens_after_the_text(tmp_path):
    data = handmade.tokenizer()
    post = data["post_processor"]
    post["single"] = [*post["single"], {"SpecialToken": {"id": "end", "type_id": 0}}]
    post["special_tokens"]["end"] = {"id": "end", "ids": [14, 15], "tokens": ["n", "o"]}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(data))
    ours = WordTokenizer.from_json(data, path)
    assert ours.encode("a b") == tokenizers.Tokenizer.from_file(str(path)).encode("a b").ids == [0, 1, 2, 14, 15]


def test_the_longest_added_token_wins_as_in_the_library(tmp_path):
    data = handmade.tokenizer()
    row = data["added_tokens"][0]
    data["added_tokens"] += [row | {"id": 16, "content": "<bos>x"}, row | {"id": 17, "content": "<b"}]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(data))
    ours, library = WordTokenizer.from_json(data, path), tokenizers.Tokenizer.from_file(str(path))
    for text in ("a<bos>xb", "<b os>", "<bos>a<b"):
        if all(token != "<bos>" or "<bos>" in text for token in library.encode(text, add_special_tokens=False).tokens):
            assert ours.encode(text) == library.encode(text).ids


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("normalizer", {"type": "Lowercase"}),
        ("pre_tokenizer", {"type": "Whitespace"}),
        ("pre_tokenizer", None),
        ("post_processor", {"type": "BertProcessing"}),
        ("truncation", {"max_length": 3}),
        ("model", {"type": "BPE"}),
        ("added_tokens", [{"id": 0, "content": "<bos>", "single_word": True}]),
    ],
)
def test_a_file_with_other_parts_is_left_to_the_library(part, value):
    assert reads(handmade.tokenizer())
    assert not reads(handmade.tokenizer() | {part: value})


def test_a_hostile_word_of_a_small_vocabulary_is_listed_escaped_and_cut():
    hostile = WordTokenizer({"\x1b[2J": 0, "a": 1, "y" * 3000: 2}, ())
    with pytest.raises(PromptError) as caught:
        hostile.encode("b")
    assert str(caught.value).endswith(rf"Its words are '\x1b[2J' a {'y' * 39}….")
