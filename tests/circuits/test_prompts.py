"""The built-in prompts repeat ordinary tokens, and a seed gives them again."""

import pytest
from attrs import evolve

import llmtrace
from llmtrace.circuits import PromptSet, repeated, texts
from llmtrace.errors import CircuitError, PromptError
from llmtrace.trace import Token


@pytest.fixture(scope="module")
def model():
    with llmtrace.open("builtin:induction", backend="reference") as opened:
        yield opened


def test_a_prompt_is_bos_and_the_same_tokens_twice(model):
    found = repeated(model, seed=3, prompts=5, period=6)
    assert len(found.prompts) == 5
    for ids, scored in zip(found.prompts, found.scored, strict=True):
        first, again = ids[1:7], ids[7:]
        assert ids[0] == 0
        assert first == again
        assert len(set(first)) == 6
        assert 0 not in first
        assert [ids[row + 1] for row in scored] == list(again[1:])


def test_the_same_seed_draws_the_same_and_another_others(model):
    assert repeated(model, seed=1) == repeated(model, seed=1)
    assert repeated(model, seed=1).prompts != repeated(model, seed=2).prompts


def test_a_small_vocabulary_shortens_what_is_repeated(model):
    assert {len(ids) for ids in repeated(model).prompts} == {1 + 2 * 15}


def test_too_few_tokens_are_refused(model):
    with pytest.raises(CircuitError, match="ordinary tokens"):
        repeated(model, period=3)


def test_what_looks_like_a_control_token_is_not_drawn(model):
    marks = ["<|im_start|>", "[INST]", "[/INST]", "[TOOL_CALLS]", "<s>"]
    words = ["a", "[]", "[1]", "[x]", "<", "<-", " [INST", "b"]
    texts = [*marks, *words, " ", "\ufffd"]

    class Spelled:
        def encode(self, text, *, special=True):
            return []

        def token(self, id):
            return Token(id, texts[id], b"\xff" if texts[id] == "\ufffd" else None)

    class Model:
        tokenizer, info, spec = Spelled(), model.info, evolve(model.spec, vocab=len(texts))

    drawn = {texts[id] for ids in repeated(Model(), period=len(texts)).prompts for id in ids}
    assert drawn == set(words)


def test_prompts_of_ones_own_score_every_row_that_has_a_next_token(model):
    found = texts(model, ["a b c", [1, 2]])
    assert found.prompts == ((0, 1, 2, 3), (1, 2))
    assert found.scored == ((0, 1, 2), (0,))


@pytest.mark.parametrize("given", [[], "a b c"])
def test_no_list_of_prompts_is_refused(model, given):
    with pytest.raises(PromptError, match="list of prompts"):
        texts(model, given)


@pytest.mark.parametrize(
    ("prompts", "scored"), [((), ()), (((1, 2),), ()), (((1, 2),), ((1,),)), (((1, 2),), ((-1,),)), (((1,),), ((0,),))]
)
def test_a_set_that_scores_what_has_no_next_token_is_refused(prompts, scored):
    with pytest.raises(PromptError, match="all before its last token"):
        PromptSet("mine", "", prompts, scored)
