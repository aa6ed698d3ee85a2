"""A session hands over what was asked for, in layer order, and never holds more than it may."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from attrs import evolve

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("llmtrace_onnxruntime")

from llmtrace.edits import ablate, changes, scale
from llmtrace.protocol import Request
from llmtrace.selection import Pick, cut
from tests.backends.onnxruntime.opening import open_graph, unequal, write
from tests.backends.onnxruntime.test_writing_features import FEATURES
from tests.backends.onnxruntime.written import TOKENS, drawn


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Three blocks, of which the middle one is another."""
    one, other = FEATURES["nothing else"].blocks[0], FEATURES["in parallel behind one norm"].blocks[0]

    spec = evolve(FEATURES["all of the head"], blocks=(one, other, one))
    with open_graph(write(drawn(spec), tmp_path_factory.mktemp("session"))) as opened:
        yield opened


class Journal:
    """What comes, in order."""

    def __init__(self):
        self.events, self.arrays = [], {}

    def signal(self, site, array):
        self.events.append(site)
        self.arrays[site] = np.array(array)

    def layer_done(self, layer):
        self.events.append(layer)


def run(model, sites=None, edits=(), **cuts):
    steps, journal = model.equations.steps, Journal()
    sites = list(model.session.offers) if sites is None else sites
    made = {site: cut(steps[site], Pick(site, **cuts), len(TOKENS)) for site in sites}
    model.session.run(Request(TOKENS, made, edits=changes(edits, steps, len(TOKENS))), journal)
    return journal


def in_layer_order(events):
    """The embedding, each block and its end, the head."""
    done = 0
    for event in events:
        if isinstance(event, int):
            assert event == done
            done += 1
        elif event.startswith("blocks."):
            assert int(event.split(".")[1]) == done, event
        else:
            assert done == (0 if event == "embed" else 3), event
    return done == 3


@pytest.mark.parametrize("edits", [(), (ablate("blocks.1.mlp.post"), scale("blocks.0.resid_mid", 2.0))])
def test_a_large_request_is_run_in_groups_and_hands_over_the_same(edits, model, monkeypatch):
    whole = run(model, edits=edits)
    calls = []
    inner = type(model.session._runner).run
    monkeypatch.setattr(model.session, "_held", 20_000)
    monkeypatch.setattr(
        type(model.session._runner),
        "run",
        lambda self, feeds, outputs: calls.append(outputs) or inner(self, feeds, outputs),
    )
    parts = run(model, edits=edits)
    assert len(calls) > 10
    assert in_layer_order(whole.events)
    assert in_layer_order(parts.events)
    assert set(parts.events) == set(whole.events)
    assert len(parts.events) == len(whole.events)
    assert not unequal(parts.arrays, whole.arrays)


def test_no_more_is_held_than_may_be(model, monkeypatch):
    held, most, limit = [], [], 9_000
    inner = type(model.session._runner).run

    def watched(self, feeds, outputs):
        assert all(each() is None for each in held), "what was handed over is still there when more is made"
        made = inner(self, feeds, outputs)
        held.extend(weakref.ref(array) for array in made.values())
        most.append(sum(array.nbytes for array in made.values()))
        return made

    monkeypatch.setattr(model.session, "_held", limit)
    monkeypatch.setattr(type(model.session._runner), "run", watched)
    run(model)
    assert max(most) <= limit
    assert sum(most) > 5 * limit


def test_one_signal_that_is_larger_than_may_be_held_is_still_handed_over(model, monkeypatch):
    whole = run(model, ["logits", "embed"])
    monkeypatch.setattr(model.session, "_held", 10)
    assert not unequal(run(model, ["logits", "embed"]).arrays, whole.arrays)


def test_signals_are_cut_as_asked(model):
    whole = run(model).arrays
    few = run(
        model, ["blocks.1.attn.z_post", "blocks.2.attn.pattern", "blocks.0.attn.k"], heads=[1], tokens=[0, -1]
    ).arrays
    last = len(TOKENS) - 1
    assert np.array_equal(few["blocks.1.attn.z_post"], whole["blocks.1.attn.z_post"][[0, last], 1:2])
    assert np.array_equal(few["blocks.2.attn.pattern"], whole["blocks.2.attn.pattern"][1:2, [0, last]])
    assert np.array_equal(few["blocks.0.attn.k"], whole["blocks.0.attn.k"][[0, last], :1])


def test_blocks_end_where_nothing_is_asked_for(model):
    assert run(model, []).events == [0, 1, 2]
    assert run(
        model, ["blocks.1.resid_mid"] if "blocks.1.resid_mid" in model.session.offers else ["blocks.1.attn.out"]
    ).events[:2] == [0, "blocks.1.attn.out"]


def test_an_observer_that_fails_stops_the_run_and_the_next_is_whole(model):
    class Fails(Journal):
        def signal(self, site, array):
            super().signal(site, array)
            if site == "blocks.1.attn.q":
                raise KeyError(site)

    steps, journal = model.equations.steps, Fails()
    cuts = {site: cut(steps[site], Pick(site), len(TOKENS)) for site in model.session.offers}
    with pytest.raises(KeyError):
        model.session.run(Request(TOKENS, cuts), journal)
    assert journal.events[-1] == "blocks.1.attn.q"
    assert in_layer_order(run(model).events)


def test_every_site_is_offered_or_missing_for_a_reason(model):
    session = model.session
    assert set(session.offers) | set(session.gaps) == set(model.equations.steps)
    assert not set(session.offers) & set(session.gaps)
    assert session.gaps["blocks.0.attn.result"].kind == "impossible"
    assert "inside the norm" in session.gaps["blocks.0.ln1.scale"].reason
    for site, array in run(model).arrays.items():
        assert array.dtype == session.offers[site].dtype, site
    assert set(session.editable) <= set(session.offers)
