"""Models whose sizes say that they are different ones are refused, by name and size; those that a fault may tell apart are compared."""

from __future__ import annotations

import pytest
from attrs import evolve

import llmtrace
from llmtrace.comparison.comparing import compare
from llmtrace.errors import LLMTraceError, UnsupportedModelError
from llmtrace.model import Model
from tests.specs import GATED, GQA, SPECS, WeighedSession, equations, model, sequential

IDS = [1, 4, 2, 9, 0, 3]
PLAIN = SPECS["sequential"]


def opened(spec, seed=0):
    return Model(WeighedSession(equations(spec, seed)))


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (evolve(PLAIN, d_model=24), "a width of 24 instead of 12"),
        (evolve(PLAIN, blocks=PLAIN.blocks[:1]), "1 block instead of 2"),
        (model(*[sequential(mlp=evolve(GATED, d_mlp=16))] * 2), "16 channels of the MLPs instead of 10"),
        (model(*[sequential(evolve(GQA, heads=8))] * 2), "48 channels of all query heads instead of 24, 8 query heads instead of 4"),
        (evolve(SPECS["experts"], blocks=SPECS["experts"].blocks * 2), "5 experts instead of 1"),
        (evolve(PLAIN, vocab=7), "a vocabulary of 7 instead of 11, without token 9"),
    ],
)  # fmt: skip
def test_different_models_are_refused_and_told_apart(other, says):
    with pytest.raises(UnsupportedModelError, match=r"^fake is another model than fake: ") as refused:
        compare(opened(PLAIN), opened(other), prompts=[IDS])
    assert says in str(refused.value)


def test_a_vocabulary_that_has_the_prompts_tokens_is_enough():
    right = equations(PLAIN)
    fewer = {"embed.W_E": right.weights["embed.W_E"][:10], "unembed.W_U": right.weights["unembed.W_U"][:, :10]}
    cut = evolve(right, spec=evolve(PLAIN, vocab=10), weights={**right.weights, **fewer})
    (found,) = compare(Model(WeighedSession(right)), Model(WeighedSession(cut)), prompts=[IDS]).candidates
    assert [each.site for each in found.divergences] == ["logits"]
    assert found.first_divergence.cause.words == "vocab 10 instead of 11, as its own file says"


def test_the_same_channels_in_other_heads_are_compared_and_the_file_is_what_says_so():
    halves = evolve(GQA, heads=8, kv_heads=4, d_head=3, d_value=3, rotary=None)
    plain = evolve(GQA, rotary=None)
    (found,) = compare(opened(model(sequential(plain))), opened(model(sequential(halves))), prompts=[IDS]).candidates
    assert found.first_divergence.site == "blocks.0.attn.q"
    assert found.first_divergence.cause.name == "its-own-settings"
    assert found.headline.startswith(
        "diverges at blocks.0.attn.q: heads 8 instead of 4, d_head 3 instead of 6, as its own file says"
    )
    assert "blocks.0.attn.out" not in {each.site for each in found.divergences}, "made of what nobody can read"
    unread = next(each for each in found.sites if each.site == "blocks.0.attn.z")
    assert unread.status == "unchecked" and "what it is made of has shape [" in unread.reason


def test_models_of_other_kinds_are_compared_or_refused_and_never_break_it(monkeypatch):
    """What is held to another's equations without having been refused before is a verdict or an error that says so."""
    monkeypatch.setattr("llmtrace.comparison.comparing.check_same", lambda reference, candidate: None)
    strange = model(sequential(evolve(GQA, heads=2, kv_heads=1)), sequential(mlp=evolve(GATED, d_mlp=4)))
    wide = evolve(PLAIN, d_model=24)
    for ours, theirs in ((PLAIN, strange), (strange, PLAIN), (SPECS["experts"], PLAIN), (PLAIN, wide)):
        try:
            found = compare(opened(ours), opened(theirs, 1), prompts=[IDS])
        except LLMTraceError:
            continue
        assert found.verdict == "diverges"


def test_the_built_in_model_is_none_of_another_width(tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"fake is another model than builtin:induction: a width of 12"):
        compare("reference:builtin:induction", opened(PLAIN), prompts=[IDS])
    assert llmtrace.compare is compare
