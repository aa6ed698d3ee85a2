"""A prompt that cannot be used is refused, by the reason."""

from __future__ import annotations

import pytest

import llmtrace
from llmtrace.errors import LimitError, PromptError


@pytest.fixture(scope="module")
def model():
    with llmtrace.open("builtin:induction") as opened:
        yield opened


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "The prompt is empty"),
        ([0, 16], r"Token id 16 is outside the vocabulary of this model \(0 … 15\)"),
        ([0, -1], "Token id -1 is outside the vocabulary"),
        ([0, 1.5], "token ids"),
        ([0] * 513, "513 tokens, over the model's context of 512"),
        ("c a z", "The word 'z' is not in the vocabulary"),
    ],
)
def test_a_prompt_that_cannot_be_used_says_why(model, prompt, message):
    with pytest.raises(PromptError, match=message):
        model.trace(prompt, capture="logits")
    with pytest.raises(PromptError, match=message):
        model.trace_many(["c a", prompt], capture="logits")


def test_a_text_of_no_words_is_the_special_token_alone(model):
    assert [token.text for token in model.tokens("")] == ["<bos>"]


def test_the_longest_prompt_of_the_context_runs(model):
    assert model.trace([0] * 512, capture=llmtrace.select("logits", tokens=[-1]))["logits"].array.shape == (1, 16)


def test_a_trace_over_the_limit_is_refused_before_the_run_with_its_bytes(model):
    with pytest.raises(LimitError, match="records 384 bytes, over the limit of 383"):
        model.trace("c a", capture="logits", max_bytes=383)  # 3 tokens, 16 logits, 8 bytes
    assert model.trace("c a", capture="logits", max_bytes=384)["logits"].bytes == 384


def test_a_prediction_is_a_token_with_its_text(model):
    assert model.predict("c a f e c a").text == "f"
    assert model.predict("c a f e c a", position=5).text == "a"
