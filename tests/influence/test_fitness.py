"""What cannot be had of a model is known before a run."""

from __future__ import annotations

import pytest

from llmtrace.errors import CapabilityError, SignalUnavailableError, UnsupportedModelError
from llmtrace.influence.fitness import lens_refusal, refusal
from llmtrace.model import Model
from llmtrace.plugins import plugins
from llmtrace.spec import Attention, Block, Branch, Mixer, ModelSpec, Norm
from tests.influence.test_run import Counting


@pytest.mark.parametrize("name", ["alti", "attention", "dla", "rollout"])
def test_a_method_that_can_be_had_is_not_refused_and_nothing_is_run(hand, name):
    counting = Counting(hand.session)
    assert refusal(Model(counting), plugins().methods[name]) is None
    assert lens_refusal(Model(counting)) is None
    assert counting.runs == []


def test_who_reads_weights_is_refused_where_there_are_none(hand):
    model = Model(Counting(hand.session, weights=False))
    refused = {name: refusal(model, row) for name, row in plugins().methods.items()}
    assert {name for name, error in refused.items() if isinstance(error, CapabilityError)} == {"alti", "dla"}
    assert isinstance(lens_refusal(model), CapabilityError)


def test_what_a_method_says_about_a_model_and_what_a_backend_lacks_are_refusals(hand, built):
    block = Block(
        (),
        (Branch("attn", "resid_pre", Attention(2, 1, 4, 4, 0.5)), Branch("mixer", "resid_pre", Mixer("mamba2"))),
    )
    model = built(ModelSpec("by hand", 8, 11, None, (block,), Norm(1e-5)))
    assert isinstance(refusal(model, plugins().methods["alti"]), UnsupportedModelError)
    blind = Counting(hand.session)
    blind.offers = {}  # nothing is handed out, so that nothing follows
    assert isinstance(refusal(Model(blind), plugins().methods["rollout"]), SignalUnavailableError)
    assert isinstance(lens_refusal(Model(blind)), SignalUnavailableError)
