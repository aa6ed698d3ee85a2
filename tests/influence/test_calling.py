"""What a stranger's method does wrong is told as its own fault: which method, of which distribution, in which call, and what it did."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from llmtrace.errors import PluginError, SchemaViolationError, UnsupportedModelError
from llmtrace.influence import Answer, Contract, Method, influence
from llmtrace.influence.fitness import refusal
from llmtrace.influence.paths import weight
from llmtrace.plugins import plugins

PROMPT = "a b c a b"


class Sound:
    """The last stream's norms, up to the position."""

    sites = ("blocks.1.resid_post", "logits")

    def __init__(self, task):
        self.task = task

    def layer(self, layer, signals):
        if layer == 1:
            self.norms = np.linalg.norm(signals["blocks.1.resid_post"], axis=-1)

    def finish(self, ends):
        self.logits = ends["logits"]

    def answer(self):
        return Answer(self.norms * (np.arange(len(self.norms)) <= self.task.position))


ROW = Method("mine", "Mine", "T", "T d", None, "nobody", Contract("o", "f", "p", "x", "norm"), Sound, aims=False)


def doing(**members):
    return attrs.evolve(ROW, fold=type("Wrong", (Sound,), members))


def answering(**fields):
    return doing(answer=lambda self: attrs.evolve(Sound.answer(self), **fields))


def fails(*_):
    return 1 / 0


def leaves(*_):
    raise SystemExit(3)


@pytest.fixture
def ask(hand, monkeypatch):
    """Runs one row as if `llmtrace-ill` had brought it."""

    def run(row, **arguments):
        real = plugins()
        origins = {**real.origins, ("influence method", "mine"): "llmtrace-ill"}
        found = attrs.evolve(real, methods={**real.methods, "mine": row}, origins=origins)
        monkeypatch.setattr("llmtrace.plugins.plugins", lambda: found)
        monkeypatch.setattr("llmtrace.influence.run.plugins", lambda: found)
        return influence(hand, PROMPT, ("mine",), **{"position": 3} | arguments)[0]

    return run


def test_a_sound_method_answers(ask):
    assert (ask(ROW).scores[:4] > 0).all()


def nothing(task) -> Any:
    """A fold that is none."""


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (doing(__init__=fails), "failed in fold: ZeroDivisionError"),
        (doing(layer=fails), "failed in layer: ZeroDivisionError"),
        (doing(layer=leaves), "failed in layer: SystemExit"),
        (doing(finish=fails), "failed in finish: ZeroDivisionError"),
        (doing(answer=fails), "failed in answer: ZeroDivisionError"),
        (doing(sites=property(fails)), "failed in sites: ZeroDivisionError"),
        (attrs.evolve(ROW, fold=nothing), "failed in sites: AttributeError"),
        (doing(sites=("blocks.1.resid_past",)), "sites.*'blocks.1.resid_past', which is no site .*Did you mean"),
        (doing(sites=("blocks.*.resid_post",)), "sites.*full name"),
        (doing(sites="logits"), "sites.*a text"),
        (doing(sites=(3,)), "sites.*3, which is no site"),
        (doing(answer=lambda self: np.zeros(6)), "answer.*ndarray.*no `Answer`"),
        (answering(scores=[0.0] * 6), "`scores`.*list.*no NumPy array"),
        (answering(scores=np.zeros(5)), r"`scores` of shape \[5\].*\[6\]"),
        (answering(scores=np.zeros(6, "U1")), "`scores` of type"),
        (answering(scores=np.zeros(6, complex)), "`scores` of type complex"),
        (answering(completeness_gap="none"), "`completeness_gap` 'none'"),
        (answering(completeness_gap=0.1), "`completeness_gap`.*claims no identity"),
        (answering(matrix=np.zeros((6, 5))), r"`matrix` of shape \[6, 5\].*\[6, 6\]"),
        (answering(heads=np.zeros((3, 2))), r"`heads` of shape \[3, 2\].*\[2, any\]"),
        (answering(maps=np.zeros((2, 2))), r"`maps` of shape \[2, 2\].*\[2, any, 6\]"),
        (answering(layers=np.zeros((2, 5))), r"`layers` of shape \[2, 5\].*\[2, 6\]"),
        (answering(parts=(("bias", None),)), "`parts`"),
        (answering(warnings="beware"), "`warnings`"),
        (answering(notes=(("x", object()),)), "`notes`"),
        (answering(table=(1,)), "`table`"),
    ],
)  # fmt: skip
def test_what_a_method_does_wrong_names_it_its_distribution_and_what_it_did(ask, row, words):
    with pytest.raises(PluginError, match=rf"The influence method mine of llmtrace-ill .*{words}"):
        ask(row)


def after(value, shape):
    array = np.zeros(shape)
    array[..., 4] = value
    return array


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (answering(scores=np.ones(6)), "`scores` that are not 0 after position 3"),
        (answering(scores=after(1e-300, 6)), "`scores` that are not 0 after position 3"),
        (answering(scores=np.full(6, np.nan)), "`scores` that hold NaN"),
        (answering(scores=np.full(6, np.inf)), "`scores` that hold NaN or infinite"),
        (answering(matrix=np.ones((6, 6))), "`matrix` that is not 0 after each row's position"),
        (answering(maps=after(1, (2, 1, 6))), "`maps` that are not 0 after position 3"),
        (answering(layers=after(1, (2, 6))), "`layers` that are not 0 after position 3"),
    ],
)
def test_scores_that_cannot_be_are_no_result(ask, row, words):
    with pytest.raises(SchemaViolationError, match=rf"The influence method mine of llmtrace-ill answered with {words}"):
        ask(row)


def test_undefined_maps_and_layers_are_allowed(ask):
    found = ask(answering(maps=np.full((2, 1, 6), np.nan), layers=np.full((2, 6), np.nan)))
    assert np.isnan(found.maps).all()


def test_an_error_that_is_one_of_ours_passes_as_it_is(ask, hand):
    def refuses(self, task):
        raise UnsupportedModelError("mine does not speak of such a model")

    with pytest.raises(UnsupportedModelError, match=r"^mine does not speak of such a model$"):
        ask(doing(__init__=refuses))
    assert isinstance(refusal(hand, doing(__init__=refuses)), UnsupportedModelError)


def test_an_interrupt_passes_as_it_is(ask):
    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(doing(answer=interrupted))


@pytest.mark.parametrize(
    "reads",
    [
        lambda task: task.equations.weights["unembed.W_U"],
        lambda task: "unembed.W_U" in task.equations.weights,
        lambda task: weight(task.equations, "unembed.W_U"),
        lambda task: task.equations.weights.get("unembed.W_U"),
    ],
)
def test_a_method_that_did_not_say_that_it_reads_weights_gets_none(ask, reads):
    def init(self, task):
        Sound.__init__(self, task)
        reads(task)

    row = doing(__init__=init)
    with pytest.raises(PluginError, match=r"mine of llmtrace-ill reads the weight unembed.W_U.* `needs` is 'T'.*'T W'"):
        ask(row)
    assert ask(attrs.evolve(row, needs="T W")).scores[0] > 0


def test_the_signals_that_methods_share_cannot_be_written_to(ask):
    def layer(self, layer, signals):
        Sound.layer(self, layer, signals)
        if layer == 1:
            signals["blocks.1.resid_post"][:] = 0

    with pytest.raises(PluginError, match=r"failed in layer: ValueError: .*read-only"):
        ask(doing(layer=layer))


def test_a_row_can_be_run_before_any_plugin_brings_it(hand):
    (found,) = influence(hand, PROMPT, [ROW])
    assert found.method == "mine"
    with pytest.raises(PluginError, match="influence method 'mine' of an unknown distribution has `needs` 'Q'"):
        influence(hand, PROMPT, [attrs.evolve(ROW, needs="Q")])
