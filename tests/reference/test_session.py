"""One run: what is handed over, when, and how little is done for it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping

import numpy as np
import pytest

import llmtrace
from llmtrace.errors import ModelOpenError, SignalUnavailableError, UnknownSignalError
from llmtrace.families import spec_of
from llmtrace.protocol import Request
from llmtrace.reference.session import ReferenceSession
from llmtrace.schema.steps import steps
from llmtrace.selection import Pick, cut
from llmtrace.testing import handmade
from llmtrace.trace import ModelInfo

IDS = (0, 3, 1, 6, 5)


@pytest.fixture(scope="module")
def model():
    with llmtrace.open("builtin:induction") as opened:
        yield opened


def request(model, *patterns, tokens=None, heads=None):
    table = model.equations.steps
    chosen = llmtrace.select(*patterns, tokens=tokens, heads=heads).resolve(table)
    return Request(IDS, {site: cut(table[site], pick, len(IDS)) for site, pick in chosen.items()})


def test_every_site_comes_once_in_layer_order_and_every_layer_is_closed(model, observer):
    model.session.run(request(model, "**", "blocks.*.attn.result"), observer)
    assert sorted(map(str, observer.events)) == sorted(["0", "1", *model.session.offers])
    places = {event: place for place, event in enumerate(observer.events)}
    for site in model.session.offers:
        layer = steps(model.spec)[site].layer
        if layer is not None:
            assert (places[layer - 1] if layer else places["embed"]) < places[site] < places[layer]
    assert places["embed"] == 0
    assert places[1] < places["ln_final.out"] < places["logits"]


def test_layers_without_a_requested_signal_are_closed_all_the_same(model, observer):
    model.session.run(request(model, "logits"), observer)
    assert observer.events == [0, 1, "logits"]


def test_a_run_without_requests_closes_the_layers(model, observer):
    model.session.run(Request(IDS, {}), observer)
    assert observer.events == [0, 1]


def test_signals_are_read_only_cut_as_asked_and_of_the_offered_type(model, observer):
    asked = request(model, "**", tokens=[-1, 0], heads=[1])
    model.session.run(asked, observer)
    table = steps(model.spec)
    for site, array in observer.arrays.items():
        assert array.shape == asked.cuts[site].shape(table[site].shape(len(IDS)))
        assert array.dtype == model.session.offers[site].dtype
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_writing_to_a_signal_is_refused_also_where_two_sites_share_memory(model, observer):
    model.session.run(request(model, "blocks.0.resid_pre", "embed", "logits"), observer)
    with pytest.raises(ValueError, match="read-only"):
        observer.arrays["embed"] += 1


def test_an_exception_of_the_observer_stops_the_run_and_leaves_the_model_as_it_was(model, observer):
    class Stops:
        def signal(self, site, array):
            raise KeyboardInterrupt

        def layer_done(self, layer):
            pass

    before = model.trace(IDS, capture="logits")["logits"].array
    with pytest.raises(KeyboardInterrupt):
        model.session.run(request(model, "embed"), Stops())
    np.testing.assert_array_equal(model.trace(IDS, capture="logits")["logits"].array, before)


def test_a_site_that_is_none_gets_near_names(model):
    with pytest.raises(UnknownSignalError, match=r"Did you mean blocks\.0\.attn\.pattern"):
        model.trace(IDS, capture="blocks.0.attn.patern")
    with pytest.raises(UnknownSignalError, match=r"Did you mean blocks\.0\.attn\.pattern"):
        _ = model.trace(IDS, capture="logits")["blocks.0.attn.patern"]


def test_single_precision_is_single_all_the_way_and_near_to_double(observer):
    double, single = (llmtrace.open("builtin:induction", options={"dtype": dtype}) for dtype in ("float64", "float32"))
    wide, narrow = double.trace(IDS), single.trace(IDS)
    for site, signal in narrow.signals.items():
        assert signal.array.dtype == np.float32, site
        np.testing.assert_allclose(signal.array, wide[site].array, rtol=1e-3, atol=1e-4)
    assert any((narrow[site].array != wide[site].array).any() for site in wide)
    assert {error.status for error in narrow.verify()} == {"holds"}


def test_a_closed_session_says_so_and_closing_twice_is_allowed():
    model = llmtrace.open("builtin:induction")
    trace = model.trace(IDS, capture="blocks.*.attn.z_post")
    model.close()
    model.close()
    with pytest.raises(ModelOpenError, match="builtin:induction is closed: open it again"):
        model.trace(IDS)
    assert trace["blocks.0.attn.result"].provenance.kind == "derived"  # a trace keeps its hold on the weights


def test_several_prompts_are_the_same_as_one_by_one(model):
    prompts = ["c a f e", [0, 1], "o"]
    for prompt, trace in zip(prompts, model.trace_many(prompts, capture="**"), strict=True):
        alone = model.trace(prompt)
        assert trace.ids == alone.ids
        for site in alone:
            np.testing.assert_array_equal(trace[site].array, alone[site].array)


class Counting(Mapping):
    """Weights that are made when they are asked for, and know how many are still held."""

    def __init__(self, weights):
        self._weights = weights
        self.reads = []
        self.alive = self.peak = 0

    def __getitem__(self, name):
        array = self._weights[name].astype(np.float64, copy=True)
        self.reads.append(name)
        self.alive += array.size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(array, self._gone, array.size)
        return array

    def _gone(self, size):
        self.alive -= size

    def __iter__(self):
        return iter(self._weights)

    def __len__(self):
        return len(self._weights)


@pytest.fixture
def counted(model):
    weights = Counting(dict(model.weights))
    info = ModelInfo("counted", "reference", "NumPy")
    return weights, ReferenceSession(spec_of(handmade.build()[0]), weights, {}, "float64", info)


def test_opening_reads_no_weight_and_a_run_reads_each_once(counted, model, observer):
    weights, session = counted
    assert weights.reads == []
    session.run(request(model, "logits"), observer)
    assert sorted(weights.reads) == sorted(weights)


def test_no_more_than_one_matrix_is_held_at_a_time(counted, model, observer):
    weights, session = counted
    gc.disable()  # what only the collector would free counts as held
    try:
        session.run(request(model, "**"), observer)
    finally:
        gc.enable()
    assert weights.peak == max(weights._weights[name].size for name in weights)
    assert weights.alive == 0


def test_what_no_requested_signal_rests_on_is_not_computed(counted, model, observer):
    weights, session = counted
    session.run(request(model, "blocks.0.attn.pattern"), observer)
    assert sorted(weights.reads) == ["blocks.0.attn.W_K", "blocks.0.attn.W_Q", "blocks.0.ln1.w", "embed.W_E"]


def test_a_missing_weight_is_named(observer, model):
    weights = {name: array for name, array in model.weights.items() if name != "blocks.1.mlp.W_in"}
    session = ReferenceSession(model.spec, weights, {}, "float64", ModelInfo("lacking", "reference", "NumPy"))
    with pytest.raises(SignalUnavailableError, match=r"The weight blocks\.1\.mlp\.W_in is not at hand"):
        session.run(request(model, "logits"), observer)


def test_the_whole_of_a_signal_is_what_its_cut_is_cut_from(model, observer):
    everything = {site: cut(step, Pick("**"), len(IDS)) for site, step in steps(model.spec).items()}
    model.session.run(Request(IDS, everything), observer)
    part = model.trace(IDS, capture=llmtrace.select("blocks.1.attn.pattern", heads=[1], tokens=[2, -1]))
    np.testing.assert_array_equal(
        part["blocks.1.attn.pattern"].array, observer.arrays["blocks.1.attn.pattern"][[1]][:, [2, 4]]
    )
