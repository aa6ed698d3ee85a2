"""Law 6. Capturing never changes what the model computes: it is checked when a model is opened, not assumed."""

import inspect

import numpy as np
import pytest

import llmtrace
from llmtrace.errors import SchemaViolationError
from llmtrace.neutral import check_neutral
from llmtrace.plugins import plugins
from llmtrace.selection import select
from tests.specs import SPECS, FakeSession, equations

WORKING = sorted(name for name, entry in plugins().backends.items() if entry.status == "ok")
PROMPT = "a b c a b"


def test_opening_checks_unless_it_is_told_not_to():
    assert inspect.signature(llmtrace.open).parameters["check"].default is True


@pytest.mark.parametrize("name", WORKING)
def test_logits_with_and_without_a_trace_agree(name, small_model):
    with small_model(name) as model:
        bare = model.trace(PROMPT, capture="logits")["logits"].array
        for capture in (
            None,
            "blocks.*.attn.pattern",
            ["**", "blocks.*.attn.result"],
            select("**", heads=[0], tokens=[-1]),
        ):
            observed = model.trace(
                PROMPT, capture=[*(capture if isinstance(capture, list) else [capture or "**"]), "logits"]
            )
            if model.info.capture_tolerance == 0:
                np.testing.assert_array_equal(observed["logits"].array, bare)
            else:
                np.testing.assert_allclose(observed["logits"].array, bare, rtol=10 * model.info.capture_tolerance)


@pytest.mark.parametrize("name", WORKING)
def test_a_run_that_broke_off_leaves_the_model_as_it_was(name, small_model):
    class Stopping:
        def signal(self, site, array):
            if site == "blocks.1.attn.z":
                raise RuntimeError("enough")

        def layer_done(self, layer):
            pass

    with small_model(name) as model:
        before = model.trace(PROMPT)
        with pytest.raises(RuntimeError, match="enough"):
            model.stream(PROMPT, Stopping())
        after = model.trace(PROMPT)
        for site in before:
            np.testing.assert_array_equal(after[site].array, before[site].array)


@pytest.mark.parametrize("name", WORKING)
def test_two_models_at_once_know_nothing_of_each_other(name, small_model):
    with small_model(name) as one, small_model(name) as two:
        alone = one.trace(PROMPT)
        two.trace("c b a")
        again = one.trace(PROMPT)
        for site in alone:
            np.testing.assert_array_equal(again[site].array, alone[site].array)


def test_what_an_observer_gets_cannot_be_written_to():
    class Writing:
        def signal(self, site, array):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0

        def layer_done(self, layer):
            pass

    with llmtrace.open("builtin:induction", backend="reference") as model:
        model.stream(PROMPT, Writing())


def test_a_model_that_moves_is_refused():
    class Moving(FakeSession):
        def hand_over(self, site, array, observer):
            observer.signal(site, array + len(self.runs) * (site == "logits"))

    with pytest.raises(SchemaViolationError, match="changes when it is observed"):
        check_neutral(Moving(equations(SPECS["sequential"])))
