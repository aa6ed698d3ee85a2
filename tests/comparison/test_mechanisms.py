"""Whether two models have the same reasons: rank correlations against SciPy, and models whose heads are known to have moved or gone."""

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import llmtrace
from llmtrace.circuits import motifs
from llmtrace.comparison.mechanisms import LOW, Mechanisms, MotifAgreement
from llmtrace.comparison.reasons import _lenses_agree, _maps_agree, _motifs_agree, spearman
from llmtrace.errors import OptionError
from llmtrace.influence import influence, lens
from llmtrace.model import Model
from llmtrace.testing import handmade
from tests import specs

PROMPTS = ["c a f e b o d c a f e b", "a b c d e f a b c d e"]
VALUES = st.lists(st.integers(-3, 3), min_size=2, max_size=12)


@given(st.data())
def test_a_rank_correlation_is_scipys(data):
    one = data.draw(VALUES)
    two = data.draw(st.lists(st.integers(-3, 3), min_size=len(one), max_size=len(one)))
    found = spearman(np.array(one), np.array(two))
    if len(set(one)) > 1 and len(set(two)) > 1:
        assert found == pytest.approx(stats.spearmanr(one, two).statistic, abs=1e-12)
    else:
        assert found == float(len(set(one)) == len(set(two)) == 1)


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


def test_positions_with_the_same_prediction_and_another_map_are_named():
    with llmtrace.open("builtin:induction", backend="reference") as model:
        (one,) = influence(model, PROMPTS[0], ("alti",))
    turned = one.matrix.copy()
    turned[9, :10] = turned[9, 9::-1]
    found = _maps_agree(0, one, evolve(one, matrix=turned))
    assert found.other_reasons == (9,)
    assert found.worst_position == 9
    assert found.worst == pytest.approx(
        stats.spearmanr(np.round(one.matrix[9, :10], 3), np.round(turned[9, :10], 3)).statistic, abs=0.1
    )
    assert found.worst < LOW
    other = evolve(one.predictions[0], id=15 - one.predictions[9].id)
    elsewhere = evolve(one, matrix=turned, predictions=(*one.predictions[:9], other, *one.predictions[10:]))
    assert _maps_agree(0, one, elsewhere).other_reasons == ()


def test_rounding_orders_nothing():
    with llmtrace.open("builtin:induction", backend="reference") as model:
        (one,) = influence(model, PROMPTS[0], ("alti",))
    noise = np.random.default_rng(0).normal(0, 1e-6, one.matrix.shape)
    assert _maps_agree(0, one, evolve(one, matrix=one.matrix + noise)).worst == pytest.approx(1)


def test_the_lens_says_where_it_parts():
    with llmtrace.open("builtin:induction", backend="reference") as model:
        one = lens(model, PROMPTS[0])
    *before, last = one.layers
    later = evolve(one, layers=(*(evolve(each, target_probability=1 / 16, target_rank=2) for each in before), last))
    found = _lenses_agree(0, one, later)
    assert found.largest == pytest.approx(np.log(16), abs=1e-4)
    assert (found.settles_reference, found.settles_candidate) == ("blocks.1.resid_mid", "blocks.1.resid_post")
    assert found.same_answer


def test_a_prediction_that_is_as_likely_as_the_best_is_the_same_answer():
    with llmtrace.open("builtin:induction", backend="reference") as model:
        one = lens(model, PROMPTS[0])
    *before, last = one.layers
    (token, share), *rest = last.top
    tied = evolve(last, top=((token, share * (1 + 1e-9)), *rest), target_rank=2)
    other = evolve(tied, top=((token, share * 1.01), *rest))
    assert _lenses_agree(0, one, evolve(one, layers=(*before, tied))).same_answer
    assert not _lenses_agree(0, one, evolve(one, layers=(*before, other))).same_answer


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


@pytest.mark.parametrize(("score", "kept"), [(0.05, True), (0.19, False), (0.3, False)])
def test_a_head_that_is_expected_below_chance_is_kept_below_it(score, kept):
    with llmtrace.open("builtin:induction", backend="reference") as model:
        ours = motifs(model, ["self"])
    (match,) = ours["self"].heads
    rare = evolve(match, score=0.0, chance=0.2, effect=-0.2)
    one = evolve(ours, found=(evolve(ours["self"], heads=(rare,)),))
    scores = {"head": np.full_like(ours["self"].scores["head"], score)}
    two = evolve(ours, found=(evolve(ours["self"], heads=(), scores=scores),))
    assert _motifs_agree(one, two)[0].heads[0].kept is kept


def test_a_saved_trace_cannot_be_asked(tmp_path):
    with llmtrace.open("builtin:induction", backend="reference") as model:
        model.trace(PROMPTS[0]).save(tmp_path / "one.trace")
    with pytest.raises(OptionError, match="saved trace"):
        llmtrace.compare("builtin:induction", tmp_path / "one.trace", backends=["reference"], mechanisms=True)
