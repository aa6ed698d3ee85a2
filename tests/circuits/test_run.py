"""Motifs of a model whose heads were set by hand: the planted ones match, every decoy is rejected."""

import numpy as np
import pytest
from attrs import evolve

import llmtrace
from llmtrace.circuits import Node, Rung, built_in, motifs
from llmtrace.circuits.ablation import Losses
from llmtrace.circuits.matching import instances
from llmtrace.circuits.motif import Expectation
from llmtrace.circuits.run import _candidates, _Side, _side
from llmtrace.circuits.scoring import Scores
from llmtrace.errors import CircuitError, PromptError, UnknownMethodError, UnsupportedModelError
from llmtrace.model import Model
from llmtrace.plugins import plugins
from llmtrace.testing import handmade
from tests import specs

PLANTED = {
    "previous-token": {"a0.h0"},
    "duplicate-token": {"a1.h1"},
    "induction": {"a0.h0", "a1.h0"},
    "first-token": {"a1.h0"},  # it rests on <bos> where nothing matches: half of the rows
    "self": {"a1.h1"},  # a row holds its own token, too
    "local-window": {"a0.h0"},
}


def named(found):
    return {each.motif.name: {str(match.node) for match in each.heads} for each in found.found}


@pytest.fixture(scope="module")
def model():
    with llmtrace.open("builtin:induction", backend="reference") as opened:
        yield opened


@pytest.fixture(scope="module")
def found(model):
    return motifs(model, check=True)


def test_exactly_the_planted_heads_match(found):
    assert named(found) == PLANTED


def test_the_scores_are_those_that_were_built_in(found):
    scores = {(each.motif.name, match.role): match.score for each in found.found for match in each.heads}
    assert scores["previous-token", "head"] == pytest.approx(1, abs=1e-5)
    assert scores["induction", "ind"] == pytest.approx(1, abs=1e-5)
    assert scores["duplicate-token", "head"] == pytest.approx(0.4975, abs=5e-3)
    assert scores["first-token", "head"] == pytest.approx(0.5, abs=1e-3)


def test_the_induction_head_reads_the_previous_token_head_by_its_keys(found):
    (instance,) = found["induction"].instances
    ((edge, kappa),) = instance.edges
    assert str(edge) == "a0.h0->a1.h0<k>"
    assert kappa == pytest.approx(1.98, abs=0.01)


def test_ablation_raises_what_the_predictions_need_and_nothing_else(found):
    rungs = {(each.motif.name, str(match.node)): match.rung for each in found.found for match in each.heads}
    assert {key for key, rung in rungs.items() if rung is Rung.CAUSAL} == {
        ("previous-token", "a0.h0"),
        ("induction", "a1.h0"),
    }
    ablation = found["induction"].heads[-1].ablation
    assert 2.7 < ablation.effect < 2.78  # a mean of values leaves a hint of which letters there are, not more
    assert abs(found["duplicate-token"].heads[0].ablation.effect) < 1e-4


def test_random_heads_go_in_a_heads_place_where_its_peers_are_gone_and_it_is_not(model, monkeypatch):
    asked = []
    inner = Losses.change
    monkeypatch.setattr(
        Losses, "change", lambda self, node, peers=(): asked.append((node, set(peers))) or inner(self, node, peers)
    )
    near = built_in()["local-window"]
    check = built_in()["previous-token"].check
    anything = evolve(near, expect={"head": Expectation(">=", 0.5)}, check=check)
    found = motifs(model, [anything], check=True)["local-window"]
    heads = [match.node for match in found.heads]
    assert len(heads) == 2
    random = ({node for node, _ in asked} - set(heads)).pop()
    for head in heads:
        others = {node for node in heads if node != head}
        assert (head, others) in asked
        assert (random, others) in asked


def test_in_shuffled_rows_next_to_nothing_matches(found):
    assert all(each.false_positives <= 0.05 for each in found.found)


def test_a_check_has_prompts_of_its_own(found):
    assert found.checked_on is not None
    assert set(found.checked_on.prompts).isdisjoint(found.prompts.prompts)


def turned(factor, by):
    """A decoy: it looks `by` positions back."""
    head, w = handmade.previous_token_head(factor), handmade.frequencies()[: handmade.POSITION_PAIRS]
    fast = np.arange(handmade.POSITION_PAIRS)
    amplitude = head.k[fast, handmade.CONST]
    head.q[fast, handmade.CONST] = amplitude * np.cos(by * w)
    head.q[fast + handmade.D_HEAD // 2, handmade.CONST] = -amplitude * np.sin(by * w)
    return head


def put(tensors, layer, number, head):
    at, rows = f"model.layers.{layer}.self_attn.", slice(number * handmade.D_HEAD, (number + 1) * handmade.D_HEAD)
    for name in "qkv":
        tensors[f"{at}{name}_proj.weight"][rows] = getattr(head, name)
    tensors[f"{at}o_proj.weight"][:, rows] = head.o.T


@pytest.fixture
def rebuilt(tmp_path, monkeypatch):
    """The model with other heads in some places, by layer and number."""

    def rebuilding(heads):
        config, tensors = handmade.build()
        for (layer, number), head in heads.items():
            put(tensors, layer, number, head)
        monkeypatch.setattr(handmade, "build", lambda: (config, tensors))
        return llmtrace.open(handmade.write(tmp_path / "model"), backend="reference")

    return rebuilding


FIRST, SECOND = handmade.rms_factor(2), handmade.rms_factor(3)


def test_heads_are_found_where_they_stand_and_decoys_beside_them_are_not(rebuilt):
    heads = {
        (0, 0): turned(FIRST, 3),
        (0, 1): handmade.previous_token_head(FIRST),
        (1, 1): handmade.induction_head(SECOND),
        (1, 0): handmade.mean_head(np.random.default_rng(1)),
    }
    with rebuilt(heads) as model:
        found = named(motifs(model))
    assert found["previous-token"] == {"a0.h1"}
    assert found["induction"] == {"a0.h1", "a1.h1"}
    assert found["duplicate-token"] == found["self"] == set()
    assert found["local-window"] == {"a0.h0", "a0.h1"}


def test_an_induction_head_whose_keys_nobody_prepares_is_none(rebuilt):
    with rebuilt({(0, 0): turned(FIRST, 2)}) as model:
        found = named(motifs(model))
    assert found["previous-token"] == found["induction"] == set()
    assert found["first-token"] == {"a1.h0"}


def test_a_previous_token_head_that_writes_where_no_key_reads_is_no_part_of_induction(rebuilt):
    """Order and scores hold, composition does not: the true writer is `a0.h0`, and `a0.h1` looks at the same place for nothing."""
    idle = handmade.previous_token_head(FIRST)
    idle.o[:] = 0
    idle.o[:, handmade.SCRATCH] = 0.01
    with rebuilt({(0, 1): idle}) as model:
        found = motifs(model)
    assert named(found)["previous-token"] == {"a0.h0", "a0.h1"}
    assert named(found)["induction"] == {"a0.h0", "a1.h0"}


def test_the_same_seed_gives_the_same_document(model, found):
    assert motifs(model, check=True).to_json() == found.to_json()


def test_few_prompts_are_an_observation_without_an_interval(model):
    found = motifs(model, ["previous-token"], prompts=["a b c d a b c d", "d e f a d e f a"])
    (match,) = found["previous-token"].heads
    assert match.rung is Rung.OBSERVED
    assert match.interval is None
    assert match.p is None


def test_a_rate_that_is_of_too_many_instances_is_not_told(model, monkeypatch):
    def too_many(motif, candidates, kappa):
        if kappa(None) is None:  # in shuffled rows, where edges do not count
            raise CircuitError("more than so many")
        return instances(motif, candidates, kappa)

    monkeypatch.setattr("llmtrace.circuits.run.instances", too_many)
    monkeypatch.setattr("llmtrace.circuits.run._Kappa.__call__", lambda self, edge: 2.0)
    found = motifs(model, ["induction"])["induction"]
    assert found.heads
    assert found.false_positives is None
    assert any("more than so many" in note for note in found.notes)


def test_a_head_that_looks_there_by_chance_alone_does_not_match_however_little_is_expected(model):
    (motif,) = [each for each in plugins().motifs.values() if each.name == "previous-token"]
    found = motifs(model, [evolve(motif, expect={"head": Expectation(">=", 0.01)})])
    assert named(found) == {"previous-token": {"a0.h0"}}  # a0.h1 looks everywhere alike


@pytest.mark.parametrize(("ends", "matches"), [((0.31, 0.9), True), ((0.29, 0.9), False)])
def test_the_whole_interval_meets_what_is_expected(ends, matches):
    node = Node("head", 0, 0)
    scores = Scores((node,), *[np.full((8, 1), 0.5)] * 3, np.full((8, 2, 1), 0.1))
    side = _Side(scores, np.array([0.5]), np.array([0.1]), tuple(np.array([end]) for end in ends), None, np.arange(8))
    assert _candidates(Expectation(">=", 0.3), side) == [node] * matches


def test_a_motif_without_an_eligible_row_is_undefined_and_never_zero(model):
    found = motifs(model, ["duplicate-token"], prompts=["a b c d e"])["duplicate-token"]
    assert found.heads == ()
    assert found.false_positives is None
    assert np.isnan(found.scores["head"]).all()
    assert "no prompt has a row where head is defined" in found.notes[0]


@pytest.mark.parametrize(
    ("prompts", "why"),
    [(["a b c d a b c d"], "there are 1, 0 of them"), (["a b c d a b c d"] * 6 + [[1]], "there are 7, 1 of them")],
)
def test_a_check_on_few_or_short_prompts_is_refused(model, prompts, why):
    with pytest.raises(PromptError, match=f"at least 6 prompts, each of two tokens or more, and {why}"):
        motifs(model, ["induction"], prompts=prompts, check=True)


def test_heads_that_a_window_leaves_without_a_row_in_one_prompt_have_no_score_and_a_note():
    spec = specs.model(specs.sequential(evolve(specs.GQA, window=2)), specs.sequential())
    model = Model(specs.WeighedSession(specs.equations(spec)))
    found = motifs(model, ["duplicate-token"], prompts=[[1, 2, 2, 3]] * 6 + [[1, 2, 3, 1]])["duplicate-token"]
    assert np.isnan(found.scores["head"][0]).all()
    assert np.isfinite(found.scores["head"][1]).all()
    assert found.notes == (
        "4 of 8 heads have no score as head: in some prompt they have no eligible row, or their pattern is not finite",
    )


@pytest.mark.parametrize("hides", ["masked", "selective"])
def test_chance_that_counts_keys_which_the_model_hides_has_a_note(model, hides):
    attention = evolve(model.spec.blocks[0].attention, **{hides: True})

    class Hiding:
        spec = specs.model(specs.sequential(attention), specs.sequential(attention))

        def __getattr__(self, name):
            return getattr(model, name)

    (note,) = motifs(Hiding(), ["self"])["self"].notes
    assert "hides keys" in note
    assert motifs(model, ["self"])["self"].notes == ()


def test_a_prompt_whose_patterns_are_not_finite_is_not_left_out():
    mass = np.full((8, 2), 0.9)
    mass[3] = np.nan
    scores = Scores(
        tuple(Node("head", 0, head) for head in range(2)),
        mass,
        np.full((8, 2), 0.1),
        np.full((8, 2), 5),
        np.full((8, 2, 2), 0.1),
    )
    side = _side(scores, 0)
    assert side.kept.tolist() == list(range(8))
    assert np.isnan(side.mean).all()
    assert _candidates(Expectation(">=", 0.3), side) == []


def test_a_motif_that_is_not_there_is_refused_with_near_names(model):
    with pytest.raises(UnknownMethodError, match="Did you mean induction"):
        motifs(model, ["inductoin"])


def test_two_motifs_of_one_name_are_refused(model):
    one = plugins().motif("self")
    with pytest.raises(CircuitError, match="Two motifs are named self"):
        motifs(model, [one, evolve(plugins().motif("previous-token"), name="self")])


def test_a_motif_of_ones_own_is_looked_for(model, tmp_path):
    from llmtrace.circuits import read_motifs

    file = tmp_path / "own.toml"
    file.write_text(
        '[motif.after-first]\nroles = { head = "head" }\nwhere = { head = "pattern[q, first(token[q]) + 1]" }\nexpect = { head = ">= 0.9" }\n',
        encoding="utf-8",
    )
    assert named(motifs(model, read_motifs(file))) == {"after-first": {"a1.h0"}}


def test_a_model_without_attention_is_refused():
    only = evolve(specs.MIXED, branches=specs.MIXED.branches[1:])
    model = Model(specs.WeighedSession(specs.equations(specs.model(only))))
    with pytest.raises(UnsupportedModelError, match="no head to score"):
        motifs(model)
