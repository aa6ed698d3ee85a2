"""Whether two models have the same reasons: models whose heads are known to have moved or gone, and what is said of that."""

import numpy as np
import pytest
from attrs import evolve

import llmtrace
from llmtrace.comparison.mechanisms import (
    HeadAgreement,
    InfluenceAgreement,
    Mechanisms,
    MotifAgreement,
)
from llmtrace.errors import OptionError
from llmtrace.model import Model
from llmtrace.testing import handmade
from tests import specs

PROMPTS = ["c a f e b o d c a f e b", "a b c d e f a b c d e"]


def compared(candidate, **options):
    found = llmtrace.compare(
        "builtin:induction", candidate, prompts=PROMPTS, backends=["reference", "reference"], mechanisms=True, **options
    )
    return found.candidates[0].mechanisms


def test_a_model_has_the_same_reasons_as_itself():
    found = compared("builtin:induction")
    assert not found.findings
    assert not found.flagged
    assert found.same_answer == 1
    assert {each.correlation for each in found.motifs} == {1.0}
    assert [each.mean for each in found.influence] == pytest.approx([1, 1])
    assert [(each.prompt, each.method, each.positions) for each in found.influence] == [
        (0, "alti", 13 - 4),
        (1, "alti", 12 - 4),
    ]
    assert [each.correlation for each in found.lens] == pytest.approx([1, 1])
    assert all(each.settles_reference == each.settles_candidate == "blocks.1.resid_mid" for each in found.lens)


@pytest.fixture
def rebuilt(tmp_path, monkeypatch):
    """A checkpoint in which some heads are exchanged, or emptied of what they write."""

    def rebuilding(order=(0, 1), empty=()):
        config, tensors = handmade.build()
        for layer in (0, 1):
            at = f"model.layers.{layer}.self_attn."
            for name in "qkvo":
                axis = 1 if name == "o" else 0
                halves = np.split(tensors[f"{at}{name}_proj.weight"], 2, axis)
                tensors[f"{at}{name}_proj.weight"] = np.concatenate([halves[number] for number in order], axis)
        for layer, number in empty:
            tensors[f"model.layers.{layer}.self_attn.q_proj.weight"][number * 32 : (number + 1) * 32] = 0
        monkeypatch.setattr(handmade, "build", lambda: (config, tensors))
        return str(handmade.write(tmp_path / "model"))

    return rebuilding


def test_heads_that_moved_give_the_same_answers_and_are_flagged_with_where_they_are_now(rebuilt):
    found = compared(rebuilt(order=(1, 0)))
    assert found.same_answer == 1
    assert found.flagged
    (said,) = [each for each in found.findings if "of induction" in each]
    assert said.startswith("2 of 2 heads of induction are gone (a0.h0 1.00 → ")
    assert said.endswith("a0.h1, a1.h1 match instead")
    assert found.words.startswith("OTHER REASONS: 100% of the predictions are the same, but ")


def test_a_head_that_nobody_needs_is_missed_although_every_answer_stays(rebuilt):
    """Without its queries the duplicate-token head looks everywhere alike; it writes where nothing reads."""
    found = compared(rebuilt(empty=[(1, 1)]))
    by_name = {each.motif: each for each in found.motifs}
    assert [head.node for head in by_name["duplicate-token"].lost] == ["a1.h1"]
    assert not by_name["induction"].lost
    assert found.flagged


def test_a_model_that_answers_otherwise_is_not_said_to_agree_on_the_answer(rebuilt):
    found = compared(rebuilt(empty=[(1, 0)]))
    assert found.same_answer < 0.9
    assert found.findings
    assert not found.flagged
    assert found.words.startswith("other mechanisms: ")
    assert all(each.mean < 0.99 for each in found.influence)
    assert not any(each.same_answer for each in found.lens)
    assert {each.settles_reference for each in found.lens} == {"blocks.1.resid_mid"}
    assert {each.settles_candidate for each in found.lens} == {""}, (
        "the reference's prediction is what both are asked of"
    )


def of(model, broken=""):
    equations = specs.equations(model)
    weights = {name: w * (np.nan if name == broken else 1) for name, w in equations.weights.items()}
    return Model(specs.WeighedSession(evolve(equations, weights=weights)))


ONE = specs.model(specs.sequential(), specs.sequential())


@pytest.mark.parametrize(
    ("candidate", "why"),
    [
        (
            specs.model(specs.sequential(), specs.sequential(evolve(specs.GQA, heads=2, d_head=12, d_value=12))),
            "other heads",
        ),
        (evolve(ONE, vocab=5), "outside the vocabulary"),
    ],
    ids=["heads", "vocabulary"],
)
def test_what_cannot_be_compared_is_a_note(candidate, why):
    found = llmtrace.compare(of(ONE), of(candidate), prompts=[[1, 2, 1, 2]], mechanisms=True).candidates[0].mechanisms
    assert found.motifs == ()
    assert found.prompts == ""
    (note,) = [each for each in found.notes if each.startswith("motifs are not compared: ")]
    assert why in note
    assert "influence maps are not compared: no prompt has 5 tokens" in found.notes


def test_predictions_that_cannot_be_compared_are_not_called_different():
    found = llmtrace.compare(of(ONE), of(evolve(ONE, vocab=5)), prompts=[[1, 2, 1, 2]], mechanisms=True)
    mechanisms = found.candidates[0].mechanisms
    assert mechanisms.same_answer is None
    assert "%" not in mechanisms.words
    assert not mechanisms.flagged


def test_nothing_compared_is_not_said_to_be_the_same():
    assert Mechanisms((), (), "", (), 1.0, ()).words == "no mechanisms could be compared"


@pytest.mark.parametrize(
    "broken", [("blocks.1.attn.W_Q", ""), ("", "blocks.1.attn.W_Q")], ids=["reference", "candidate"]
)
def test_heads_that_only_one_side_has_scores_of_are_not_said_to_be_the_same(broken):
    sides = [of(ONE, name) for name in broken]
    found = llmtrace.compare(*sides, prompts=[[1, 2, 1, 2, 3]], mechanisms=True).candidates[0].mechanisms
    assert {each.correlation for each in found.motifs} == {None}
    assert found.words == "no mechanisms could be compared"


def test_reasons_that_are_only_partly_compared_are_said_to_be():
    found = Mechanisms(
        (), (MotifAgreement("self", 1.0, (), ()),), "these", (), 1.0, (), ("the lens is not compared: …",)
    )
    assert found.words.endswith("100% of the predictions are the same, and so are the reasons that could be compared")


def test_a_saved_trace_cannot_be_asked(tmp_path):
    with llmtrace.open("builtin:induction", backend="reference") as model:
        model.trace(PROMPTS[0]).save(tmp_path / "one.trace")
    with pytest.raises(OptionError, match="saved trace"):
        llmtrace.compare("builtin:induction", tmp_path / "one.trace", backends=["reference"], mechanisms=True)


@pytest.mark.parametrize(
    ("share", "findings", "flagged"),
    [(0.9, ("x",), True), (0.89, ("x",), False), (1.0, (), False), (None, ("x",), False)],
)
def test_models_are_flagged_that_agree_on_nine_answers_of_ten_and_not_on_the_reasons(share, findings, flagged):
    maps = InfluenceAgreement(0, "alti", 9, 0.9, 0.5, 6, 3, (6,))
    found = Mechanisms((maps,), (), "", (), share, findings)
    assert found.flagged is flagged
    assert found.words.startswith("OTHER REASONS: ") is flagged


def test_heads_that_match_without_a_correlation_are_something_that_was_compared():
    head = HeadAgreement("head", "a1.h0", 0.75, 0.75, 0.1, True)
    found = Mechanisms((), (MotifAgreement("self", None, (head,), ()),), "these", (), 1.0, ())
    assert found.words == "the same mechanisms: 100% of the predictions are the same, and so are the reasons"


def test_without_weights_maps_are_made_by_rollout_on_both_sides():
    both = specs.equations(ONE)
    found = llmtrace.compare(
        Model(specs.WeighedSession(both)), Model(specs.FakeSession(both)), prompts=[[1, 2, 1, 2, 3, 4]], mechanisms=True
    )
    (maps,) = found.candidates[0].mechanisms.influence
    assert (maps.method, maps.positions, maps.worst) == ("rollout", 2, pytest.approx(1))
