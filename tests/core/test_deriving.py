"""Patterns that are derived from a capture in float32: in float32, once for each attention, and by the equations where a number is not finite."""

import numpy as np
import pytest
from attrs import evolve

from llmtrace.model import Model
from llmtrace.schema.attending import Attending
from llmtrace.schema.precision import Precision
from llmtrace.selection import select
from tests.specs import GQA, WeighedSession, equations, model, sequential

IDS = (1, 4, 2, 4, 1, 0, 3)
BUILT = equations(model(sequential(evolve(GQA, sinks=True, window=4)), sequential(GQA)))
"""Two unlike blocks: what is kept from the first shows in the second."""
MADE = ["blocks.*.attn.{scores,pattern,sink}"]


class Narrow(WeighedSession):
    """Hands out what enters attention, in float32; `wrong` is put into block 1's queries."""

    def __init__(self, *also, dtype="float32", wrong=None):
        super().__init__(BUILT, [site for site in BUILT.steps if site.endswith((".q", ".k", ".v", *also))], dtype)
        self.wrong = wrong

    def hand_over(self, site, array, observer):
        if self.wrong is not None and site == "blocks.1.attn.q":
            array = array.copy()
            array[4, 1, 2] = self.wrong
        observer.signal(site, array)


def traces(session, capture):
    """What was recorded, and, by site, what the equations in float64 make of the same capture."""
    trace = Model(session).trace(IDS, capture=["blocks.*.attn.{q,k,v}", *capture])
    look = BUILT.looking({"tokens": np.array(IDS), "positions": np.arange(len(IDS))} | {
        site: signal.array for site, signal in trace.signals.items() if signal.provenance.kind != "derived"
    })  # fmt: skip
    return trace, {site: look(site) for site, signal in trace.signals.items() if signal.provenance.kind == "derived"}


@pytest.mark.parametrize("only", [MADE, ["blocks.*.attn.pattern"], ["blocks.*.attn.sink"], ["blocks.*.attn.scores"]])
def test_what_is_derived_in_float32_is_the_equations_value(only):
    trace, expected = traces(Narrow(), only)
    assert expected
    for site, array in expected.items():
        assert trace[site].precision == Precision("float32", "float32")
        assert trace[site].array.dtype == np.float32
        assert not trace[site].array.flags.writeable
        np.testing.assert_allclose(trace[site].array, array, rtol=2e-6, atol=1e-6, err_msg=site)


def test_each_attention_is_computed_once(monkeypatch):
    calls, plain = [], Attending.__call__

    def counted(self, a, rot_q, rot_k, sinks, wanted):
        calls.append((a.sinks, sorted(wanted)))
        return plain(self, a, rot_q, rot_k, sinks, wanted)

    monkeypatch.setattr(Attending, "__call__", counted)
    traces(Narrow(), MADE)
    assert calls == [(True, ["pattern", "scores", "sink"]), (False, ["pattern", "scores"])]


def test_a_cut_of_a_derived_pattern_is_that_of_the_whole():
    whole = Model(Narrow()).trace(IDS, capture="blocks.*.attn.pattern")["blocks.1.attn.pattern"].array
    part = (
        Model(Narrow()).trace(IDS, capture=select("blocks.1.attn.pattern", heads=[1, 3]))["blocks.1.attn.pattern"].array
    )
    np.testing.assert_allclose(
        part, whole[[1, 3]], rtol=1e-6
    )  # made alone, so that sums may be rounded in another order


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e30])
def test_numbers_that_are_not_finite_or_too_large_are_the_equations_to_the_bit(wrong):
    with np.errstate(all="ignore"):
        trace, expected = traces(Narrow(wrong=wrong), MADE)
        for site in (site for site in expected if site.startswith("blocks.1.")):
            np.testing.assert_array_equal(trace[site].array, expected[site].astype(np.float32))
    assert np.isfinite(trace["blocks.0.attn.pattern"].array).all()


def test_what_rests_on_float64_is_derived_in_float64():
    trace, expected = traces(Narrow(dtype="float64"), MADE)
    for site, array in expected.items():
        assert trace[site].precision == Precision("float64", "float64")
        np.testing.assert_array_equal(trace[site].array, array)


def test_a_pattern_whose_scores_were_captured_is_their_softmax():
    trace, expected = traces(Narrow(".scores"), MADE)
    assert set(expected) == {"blocks.0.attn.pattern", "blocks.1.attn.pattern", "blocks.0.attn.sink"}
    for site, array in expected.items():
        assert trace[site].precision == Precision("float32", "float64")
        np.testing.assert_array_equal(trace[site].array, array.astype(np.float32))


def test_memory_that_a_layer_left_is_taken_by_the_next_without_a_trace_of_it():
    first, _ = traces(Narrow(), MADE)
    again, _ = traces(Narrow(), ["blocks.1.attn.pattern"])
    np.testing.assert_array_equal(first["blocks.1.attn.pattern"].array, again["blocks.1.attn.pattern"].array)


BY_TOKEN = ["blocks.*.{ln1,ln2}.*", "blocks.*.mlp.*", "blocks.*.attn.{rot_q,rot_k}"]


@pytest.mark.parametrize("block", [1, 100, 1 << 20])
def test_what_stands_alone_in_each_token_is_made_of_some_tokens_at_a_time(monkeypatch, block):
    monkeypatch.setattr("llmtrace.deriving.BLOCK", block)
    session = WeighedSession(BUILT, [site for site in BUILT.steps if site.endswith((".resid_pre", ".resid_mid"))])
    trace, expected = traces(session, BY_TOKEN)
    assert len(expected) > 20
    for site, array in expected.items():
        np.testing.assert_allclose(trace[site].array, array, rtol=1e-6, atol=1e-7, err_msg=site)


def test_what_reads_other_tokens_is_not_cut_up():
    plan = Model(Narrow()).plan(Model(Narrow()).tokens(list(IDS)), [*MADE, "blocks.*.attn.{rot_q,z}"])
    assert plan.rowwise == {site for site in plan.derived if site.endswith(".rot_q")}
