"""A text in chunks, as llama.cpp's perplexity tool cuts it: which tokens are run, and which predictions count."""

from __future__ import annotations

import pytest

import llmtrace
from llmtrace.comparison.budget_text import Piece, batches, chunks
from llmtrace.errors import OptionError, PromptError
from llmtrace.model import Model
from tests.specs import SPECS, WeighedSession, equations


@pytest.fixture(scope="module")
def model():
    with llmtrace.open("builtin:induction", backend="reference") as opened:
        yield opened


def test_every_chunk_begins_with_the_token_that_begins_a_text_and_predicts_from_its_middle_on(model):
    letters = "a b c d e f g h i j k l m n o a b c d"  # <bos> and 19 letters: two chunks of 8, and 4 tokens left over
    first, second = chunks(model, letters, 8, None, None)
    assert first == Piece((0, 1, 2, 3, 4, 5, 6, 7), 4, (5, 6, 7))
    assert second == Piece((0, 9, 10, 11, 12, 13, 14, 15), 4, (13, 14, 15))  # 8, the letter h, is replaced
    assert first.counted == [4, 5, 6]
    assert len(first.counted) == 8 - 1 - 8 // 2


def test_an_odd_context_counts_one_more_than_half():
    piece = Piece(tuple(range(9)), 4, (5, 6, 7, 8))
    assert piece.counted == [4, 5, 6, 7]


def test_the_odd_chunk_of_a_text(model):
    (piece,) = chunks(model, list(range(9)), 9, None, None)
    assert (piece.first, piece.following) == (4, (5, 6, 7, 8))


def test_so_many_chunks_at_most(model):
    assert len(chunks(model, [3] * 100, 8, None, None)) == 12
    assert len(chunks(model, [3] * 100, 8, 5, None)) == 5


def test_the_least_and_the_most_that_are_taken(model):
    """Four tokens predict one; a text may be one chunk, and a chunk as long as the models' context."""
    (piece,) = chunks(model, [3, 4, 5, 6], 4, 1, 4)
    assert (piece.ids, piece.counted, piece.following) == ((0, 4, 5, 6), [2], (6,))
    with pytest.raises(PromptError, match="text has 3 tokens"):
        chunks(model, [3, 4, 5], 4, None, None)
    with pytest.raises(OptionError, match="at least 4 tokens, and at least one: got 4 and 0"):
        chunks(model, [3, 4, 5, 6], 4, 0, None)


def test_without_a_tokenizer_a_text_is_token_ids():
    bare = Model(WeighedSession(equations(SPECS["sequential"])))
    with pytest.raises(PromptError, match="fake has no tokenizer to read the text with: give its token ids"):
        chunks(bare, "a b c d", 4, None, None)
    (piece,) = chunks(bare, [3, 4, 5, 6], 4, None, None)
    assert piece.ids == (3, 4, 5, 6)  # and no token begins one


def test_what_cannot_be_read_in_chunks(model):
    with pytest.raises(PromptError, match="text has 4 tokens, which fills no chunk of 8"):
        chunks(model, "a b c", 8, None, None)
    for bad in (16, -1):
        with pytest.raises(PromptError, match=rf"Token id {bad} is outside the vocabulary of this model \(0 … 15\)"):
            chunks(model, [3, bad] * 8, 8, None, None)
    with pytest.raises(OptionError, match="8 tokens is more than the models' context of 6"):
        chunks(model, "a b c", 8, None, 6)
    with pytest.raises(OptionError, match="at least 4 tokens"):
        chunks(model, "a b c", 3, None, None)


def test_a_prompt_counts_whole():
    assert Piece((5, 6, 7)).counted == [0, 1, 2]


def test_batches_hold_as_many_predictions_as_there_is_room_for():
    pieces = [Piece((0,) * length) for length in (3, 4, 9, 1, 1)]
    assert [[len(piece.ids) for piece in batch] for batch in batches(pieces, 7)] == [[3, 4], [9], [1, 1]]
    chunk = Piece((0,) * 8, 4, (1, 2, 3))  # of which three count
    assert [len(batch) for batch in batches([chunk] * 5, 6)] == [2, 2, 1]
