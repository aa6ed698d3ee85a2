"""What a call asks for and how it is carried out: targets, positions, passes, refusals."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from llmtrace.errors import (
    CapabilityError,
    PromptError,
    SchemaViolationError,
    UnknownMethodError,
    UnsupportedModelError,
)
from llmtrace.influence import influence, lens, picture
from llmtrace.model import Model
from llmtrace.spec import Attention, Block, Branch, Mixer, ModelSpec, Norm

ALL = ("attention", "rollout", "alti", "dla")
PROMPT = "a b c d e a b c"


class Counting:
    """A session that counts its runs and may hide its weights."""

    def __init__(self, session, weights=True):
        self._session = session
        self.runs = []
        for name in ("info", "spec", "tokenizer", "offers", "gaps"):
            setattr(self, name, getattr(session, name))
        if weights:
            self.weights, self.stored = session.weights, session.stored

    def run(self, request, observer):
        self.runs.append(set(request.cuts))
        self._session.run(request, observer)

    def close(self):
        pass


def test_the_predicted_token_is_the_target_when_none_is_named(hand):
    (found,) = influence(hand, PROMPT)
    assert (found.method, found.target, found.position) == ("alti", hand.predict(PROMPT), 8)
    assert found.predictions[8] == found.target
    (earlier,) = influence(hand, PROMPT, position=6)
    assert earlier.target == hand.predict(PROMPT, 6)


def test_negative_positions_count_from_the_end(hand):
    by_end, by_start = (influence(hand, PROMPT, ALL, position=position) for position in (-3, 6))
    for a, b in zip(by_end, by_start, strict=True):
        assert a.position == b.position == 6
        assert np.array_equal(a.scores, b.scores)


def test_methods_and_lens_share_one_pass_after_the_bare_one(hand):
    counting = Counting(hand.session)
    found, seen = picture(Model(counting), PROMPT, ALL)
    assert [influence.method for influence in found] == list(ALL)
    assert seen.layers[-1].target_rank == 1
    assert len(counting.runs) == 2
    assert counting.runs[0] == {"logits"}


def test_no_bare_pass_is_made_where_no_method_aims_or_the_target_is_named(hand, strangers_aim):
    runs = {}
    for names, target in ((ALL[:3], None), (ALL[:3], "d"), (("aimed",), "d"), (("aimed",), None), (("dla",), "d")):
        counting = Counting(hand.session)
        found = influence(Model(counting), PROMPT, names, target=target)
        assert {(one.target.text, one.predictions[-1].text) for one in found} == {("d", "d")}
        runs[names, target] = len(counting.runs)
    assert list(runs.values()) == [1, 1, 1, 2, 2]  # the last wants every prediction beforehand
    counting = Counting(hand.session)
    assert lens(Model(counting), PROMPT).target.text == "d"
    assert len(counting.runs) == 1


@pytest.fixture
def strangers_aim(monkeypatch):
    """A method `aimed` whose scores are the target's id, and which does not say whether it aims."""
    from llmtrace.influence import Answer, Contract, Method
    from llmtrace.plugins import plugins

    class Aimed:
        sites = ("logits",)

        def __init__(self, task):
            self.task = task

        def layer(self, layer, signals):
            pass

        def finish(self, ends):
            pass

        def answer(self):
            return Answer(np.full(len(self.task.tokens), float(self.task.target.id)))

    row = Method("aimed", "Aimed", "T", "T", None, "nobody", Contract("o", "f", "p", "x", "id"), Aimed)
    found = attrs.evolve(plugins(), methods={**plugins().methods, "aimed": row})
    for place in ("llmtrace.influence.run.plugins", "llmtrace.influence.fitness.plugins"):
        monkeypatch.setattr(place, lambda: found)
    return row


def test_a_method_that_does_not_aim_answers_the_same_for_every_target_and_does_not_pretend(hand):
    for one, other in zip(influence(hand, PROMPT, ALL), influence(hand, PROMPT, ALL, target="e"), strict=True):
        assert np.array_equal(one.scores, other.scores) == (one.method != "dla")
        assert one.aims == other.aims == (one.method == "dla")
        assert ("the named target" in dict(other.notes)) == (one.method != "dla")
        assert "the named target" not in dict(one.notes)
        assert other.target.text == "e"


def test_a_foil_that_no_method_takes_is_refused_with_the_methods_that_take_one(hand, strangers_aim):
    counting = Counting(hand.session)
    for names in (("alti",), ("rollout", "attention")):
        with pytest.raises(PromptError, match=r"no target enters .*use a method that takes one: aimed, dla\."):
            influence(Model(counting), PROMPT, names, foil="e")
    assert counting.runs == []
    alti, dla = influence(hand, PROMPT, ("alti", "dla"), foil="e")
    assert (alti.foil, dla.foil.text) == (None, "e")


def test_it_says_how_likely_the_model_finds_the_target_and_what_it_predicts(tiny, tokens):
    model, watched = tiny("llama")
    (found,) = influence(model, tokens, ("rollout",), position=7, target=44)
    p = np.exp(watched.logits[7] - watched.logits[7].max())
    p /= p.sum()
    order = np.argsort(-p, kind="stable").tolist()
    rank = 1 + order.index(44)
    assert (found.target_standing.rank, found.target_standing.ranks) == (rank, (rank, rank))
    assert found.target_standing.probability == pytest.approx(p[44], rel=1e-5)
    assert found.predicted_standing.probability == pytest.approx(p.max(), rel=1e-5)
    assert (found.predicted_standing.rank, found.predictions[7].id) == (1, order[0])


def test_a_target_that_reads_like_the_predicted_token_but_is_another_is_warned_about(hand):
    class Spaced:
        """A tokenizer with a token that differs from `d` by a blank."""

        def __init__(self, real):
            self._real, self.encode = real, real.encode

        def token(self, id):
            return attrs.evolve(self._real.token(id), text=" d") if id == 6 else self._real.token(id)

    counting = Counting(hand.session)
    counting.tokenizer = Spaced(hand.session.tokenizer)
    (alike,) = influence(Model(counting), PROMPT, ("dla",), target=6)
    assert alike.warnings[-1] == "The target ' d' is not the predicted token 'd': they are different tokens."
    for target in (5, 4, None):
        assert influence(Model(counting), PROMPT, ("dla",), target=target)[0].warnings == ()
    assert influence(Model(counting), PROMPT, ("rollout",), target=6)[0].warnings == ()


def test_together_or_alone_the_numbers_are_the_same(hand):
    found, seen = picture(hand, PROMPT, ALL, top=3)
    for together in found:
        (alone,) = influence(hand, PROMPT, (together.method,))
        assert np.array_equal(together.scores, alone.scores)
    assert seen == lens(hand, PROMPT, top=3)


def test_a_foil_is_subtracted(hand):
    with_foil, target, foil = (
        influence(hand, PROMPT, ("dla",), target=t, foil=f)[0] for t, f in (("d", "e"), ("d", None), ("e", None))
    )
    assert np.allclose(with_foil.scores, target.scores - foil.scores, atol=1e-12)
    assert with_foil.foil.text == "e"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"position": 9}, "out of range: the prompt has 9 tokens"),
        ({"position": -10}, "out of range"),
        ({"target": "d e"}, "is not one token but 'd' · 'e'"),
        ({"target": 16}, "outside the vocabulary"),
        ({"foil": 99}, "outside the vocabulary"),
        ({"target": "d", "foil": 4}, "their difference is 0"),
        ({"foil": "d"}, "their difference is 0"),
    ],
)
def test_positions_targets_and_foils_that_cannot_be_used_are_named(hand, arguments, message):
    with pytest.raises(PromptError, match=message):
        influence(hand, PROMPT, ("dla",), **arguments)


def test_an_unknown_method_is_offered_near_names(hand):
    with pytest.raises(UnknownMethodError, match="Did you mean rollout"):
        influence(hand, PROMPT, ("roll-out",))


@pytest.mark.parametrize("method", ["alti", "dla"])
def test_without_weights_methods_that_read_them_say_what_to_do(hand, method):
    counting = Counting(hand.session, weights=False)
    with pytest.raises(CapabilityError, match=rf"{method} reads weights.*--backend.*llmtrace backends"):
        influence(Model(counting), PROMPT, (method,))
    with pytest.raises(CapabilityError, match="logit lens reads weights"):
        lens(Model(counting), PROMPT)
    assert counting.runs == []
    assert influence(Model(counting), PROMPT, ("attention", "rollout"))[1].completeness_gap < 1e-12


def test_a_mixer_that_no_pattern_shows_is_refused_by_name(built):
    mixed = Block(
        (),
        (
            Branch("attn", "resid_pre", Attention(2, 1, 4, 4, 0.5)),
            Branch("mixer", "resid_pre", Mixer("gated_delta_net")),
        ),
    )
    model = built(ModelSpec("by hand", 8, 11, None, (mixed,), Norm(1e-5)))
    for method in ("alti", "rollout"):
        with pytest.raises(UnsupportedModelError, match=r"branch mixer of block 0 is a gated_delta_net.*dla"):
            influence(model, [1, 2], (method,), target=3)
    alone = built(ModelSpec("by hand", 8, 11, None, (attrs.evolve(mixed, branches=mixed.branches[1:]),), Norm(1e-5)))
    with pytest.raises(UnsupportedModelError, match="no block of this by hand model has attention"):
        influence(alone, [1, 2], ("attention",), target=3)


def test_a_first_position_that_absorbs_all_is_warned_about(hand):
    (found,) = influence(hand, [0, 0, 0, 0, 0, 0, 0, 0], ("rollout",), position=1)
    assert found.warnings == ()  # no position has more than nine tenths
    prompt = [5] + [0] * 3

    class Sink(Counting):
        def run(self, request, observer):
            class Swap:
                def signal(self, site, array):
                    if site.endswith("pattern"):
                        array = np.zeros_like(array)
                        array[..., 0] = 1
                    observer.signal(site, array)

                layer_done = observer.layer_done

            self._session.run(request, Swap())

    (absorbed,) = influence(Model(Sink(hand.session)), prompt, ("attention",))
    assert dict(absorbed.notes)["share of the first position"] == 1
    assert "100.0% of the influence stands on the first position" in absorbed.warnings[0]
    (own,) = influence(Model(Sink(hand.session)), prompt, ("attention",), position=0)
    assert own.warnings == ()  # position 0 sees nothing else


def test_logits_that_hold_nan_are_refused(hand):
    class Broken(Counting):
        def run(self, request, observer):
            class Swap:
                def signal(self, site, array):
                    observer.signal(
                        site,
                        np.where(np.arange(len(array))[:, None] == 4, np.nan, array) if site == "logits" else array,
                    )

                layer_done = observer.layer_done

            self._session.run(request, Swap())

    with pytest.raises(SchemaViolationError, match="hold NaN or infinity from position 4"):
        influence(Model(Broken(hand.session)), PROMPT, ("rollout",))


@pytest.mark.parametrize("prompt", [[3], [0]])
def test_a_prompt_of_one_token_credits_that_token(hand, prompt):
    found, seen = picture(hand, prompt, ALL)
    for one in found[:3]:
        assert one.scores == pytest.approx([1.0])
        assert one.warnings == ()
    assert found[3].scores.shape == (1,)
    assert len(seen.layers) == 5


def test_position_0_depends_on_itself_only(tiny, tokens):
    for one in influence(tiny("llama")[0], tokens, ALL, position=0):
        assert (one.scores[1:] == 0).all()
        assert one.scores[0] != 0


def test_the_models_own_methods_are_these_functions(hand):
    assert np.array_equal(hand.influence(PROMPT, method="dla").scores, influence(hand, PROMPT, ("dla",))[0].scores)
    assert hand.lens(PROMPT, top=2) == lens(hand, PROMPT, top=2)


@pytest.mark.parametrize("position", ["x", 1.5, None, [0]])
def test_a_position_that_is_no_whole_number_is_an_error_that_shows_it(hand, position):
    with pytest.raises(PromptError, match="A position is a whole number, not"):
        influence(hand, "a b c", position=position)
