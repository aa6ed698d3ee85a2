"""A text in chunks, as llama.cpp's perplexity tool cuts it: which tokens are run, and which predictions count."""

from __future__ import annotations

import pytest

import llmtrace
from llmtrace.comparison.budget_text import Piece, batches, chunks
from llmtrace.errors import OptionError, PromptError


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


def test_what_cannot_be_read_in_chunks(model):
    with pytest.raises(PromptError, match="text has 4 tokens, which fills no chunk of 8"):
        chunks(model, "a b c", 8, None, None)
    with pytest.raises(PromptError, match="Token id 16 is outside"):
        chunks(model, [3, 16] * 8, 8, None, None)
    with pytest.raises(OptionError, match="8 tokens is more than the models' context of 6"):
        chunks(model, "a b c", 8, None, 6)
    with pytest.raises(OptionError, match="at least 4 tokens"):
        chunks(model, "a b c", 3, None, None)


def test_a_prompt_counts_whole():
    assert Piece((5, 6, 7)).counted == [0, 1, 2]


def test_batches_hold_as_many_predictions_as_there_is_room_for():
    pieces = [Piece((0,) * length) for length in (3, 4, 9, 1, 1)]
    assert [[len(piece.ids) for piece in batch] for batch in batches(pieces, 7)] == [[3, 4], [9], [1, 1]]
