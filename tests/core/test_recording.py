"""A run hands over what was asked for, once, in order; what the runtime lacks is derived on the way, with the memory of a layer."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtrace.deriving import Deriving
from llmtrace.errors import CapabilityError, SchemaViolationError, SignalUnavailableError
from llmtrace.model import Model
from llmtrace.protocol import Gap
from llmtrace.recording import Folding, keep, plan
from llmtrace.schema.steps import layer_of, steps
from llmtrace.selection import select
from tests.specs import CLEAR, SPECS, FakeSession, WeighedSession, capture, equations, model, sequential, specs

IDS = (1, 4, 2, 4, 1)
LEAN = (
    ".q",
    ".k",
    ".v",
    ".rot_q",
    ".rot_k",
    ".z_post",
    "resid_pre",
    "_out",
    "resid_post",
    ".pre",
    ".pre_linear",
    ".router",
    "logits",
)


def lean(spec):
    """What a runtime with fused attention would hand out."""
    return [site for site in steps(spec) if site.endswith(LEAN)]


class Order:
    """Notes what an observer is told."""

    def __init__(self):
        self.events = []

    def signal(self, site, array):
        self.events.append(site)

    def layer_done(self, layer):
        self.events.append(layer)


@pytest.mark.parametrize("name", SPECS)
def test_what_is_recorded_is_what_the_model_computed(name):
    built = equations(SPECS[name])
    trace = Model(FakeSession(built)).trace(IDS)
    expected = capture(built, IDS)
    assert set(trace) == {site for site in expected if not site.endswith(".result")}
    for site in trace:
        np.testing.assert_array_equal(trace[site].array, expected[site])


@pytest.mark.parametrize("name", CLEAR)
def test_what_a_lean_runtime_lacks_is_derived_on_the_way(name):
    built = equations(CLEAR[name])
    trace = Model(WeighedSession(built, lean(built.spec))).trace(IDS)
    expected = capture(built, IDS)
    assert {signal.provenance.kind for signal in trace.signals.values()} == {"captured", "derived"}
    for site in trace:
        np.testing.assert_allclose(trace[site].array, expected[site], rtol=1e-9, atol=1e-12)


@given(specs(), st.data())
def test_each_signal_comes_once_and_in_layer_order(spec, data):
    built = equations(spec)
    offers = data.draw(st.sets(st.sampled_from(list(built.steps)))) | {"logits"}
    session, order = WeighedSession(built, offers), Order()
    ready = plan(session, built, select("**"), IDS)
    Model(session).stream(IDS, order)
    sites = [event for event in order.events if isinstance(event, str)]
    assert sorted(sites) == sorted(ready.cuts)
    layer = 0
    for event in order.events:
        if isinstance(event, int):
            assert event == layer
            layer += 1
        elif layer_of(event) is not None:
            assert layer_of(event) == layer
        else:
            assert layer == (0 if event in ("embed", "pos_embed") else len(spec.blocks))
    assert layer == len(spec.blocks)


def test_embeddings_that_are_derived_come_before_the_first_block():
    built = equations(SPECS["learned positions"])
    order = Order()
    Model(WeighedSession(built, lean(built.spec))).stream(IDS, order)
    assert order.events[:2] == ["embed", "pos_embed"]


def test_a_runtime_may_reuse_its_buffer_for_what_a_derivation_rests_on():
    class Reusing(WeighedSession):
        def hand_over(self, site, array, observer):
            buffer = array.copy()
            observer.signal(site, buffer)
            buffer[...] = np.nan

    built = equations(SPECS["sequential"])
    trace = Model(Reusing(built, lean(built.spec))).trace(IDS, capture="blocks.0.attn.pattern")
    np.testing.assert_allclose(
        trace["blocks.0.attn.pattern"].array, capture(built, IDS)["blocks.0.attn.pattern"], rtol=1e-9
    )


def test_a_model_without_blocks_has_its_ends():
    built = equations(model())
    trace = Model(WeighedSession(built, ["logits"])).trace(IDS)
    assert list(trace) == ["embed", "logits"]
    np.testing.assert_array_equal(trace["embed"].array, built.weights["embed.W_E"][list(IDS)])


def test_a_cut_of_what_the_runtime_hands_out_whole_for_a_derivation_is_still_a_cut():
    session = FakeSession(equations(SPECS["sequential"]), ["blocks.0.attn.rot_q", "blocks.0.attn.rot_k", "logits"])
    trace = Model(session).trace(IDS, capture=[select("blocks.0.attn.rot_q", heads=[1]), "blocks.0.attn.pattern"])
    assert trace["blocks.0.attn.rot_q"].array.shape == (5, 1, 6)
    assert trace["blocks.0.attn.pattern"].array.shape == (4, 5, 5)


def test_a_site_named_alone_that_cannot_be_had_is_an_error_with_reason_and_gap():
    session = FakeSession(equations(SPECS["sequential"]), ["logits"])
    session.gaps = {"blocks.0.attn.pattern": Gap("upstream", "the kernel is fused")}
    with pytest.raises(
        SignalUnavailableError,
        match=r"pattern is not available from the backend fake \(upstream\): the kernel is fused",
    ) as caught:
        Model(session).trace(IDS, capture=["**", "blocks.0.attn.pattern"])
    assert caught.value.gap == "upstream"


@pytest.mark.parametrize("name", ["blocks.0.attn.hook_pattern", "blocks.-2.attn.pattern"])
def test_so_it_is_by_another_name(name):
    with pytest.raises(SignalUnavailableError, match=r"blocks\.0\.attn\.pattern"):
        Model(FakeSession(equations(SPECS["sequential"]), ["logits"])).trace(IDS, capture=["**", name])


def test_wildcards_take_what_there_is_but_not_nothing():
    opened = Model(FakeSession(equations(SPECS["sequential"]), ["logits"]))
    assert list(opened.trace(IDS)) == ["logits"]
    with pytest.raises(SignalUnavailableError):
        opened.trace(IDS, capture="blocks.*.attn.pattern")


class Faulty(FakeSession):
    """Does one thing wrong."""

    fault = ""

    def hand_over(self, site, array, observer):
        if site != "blocks.0.attn.z":
            observer.signal(site, array)
            if self.fault == "late" and site == "blocks.1.resid_pre":
                observer.signal("blocks.0.attn.z", self.kept)
            return
        self.kept = array
        if self.fault == "twice":
            observer.signal(site, array)
            observer.signal(site, array)
        elif self.fault == "wrong shape":
            observer.signal(site, array.transpose(1, 0, 2))
        elif self.fault == "wrong type":
            observer.signal(site, array.astype(np.float32))
        elif self.fault == "not asked":
            observer.signal("blocks.0.attn.result", array)
        elif self.fault == "no such site":
            observer.signal("blocks.0.attn.zz", array)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("twice", "blocks.0.attn.z twice"),
        ("wrong shape", r"blocks.0.attn.z with shape \[4, 5, 6\] instead of \[5, 4, 6\]"),
        ("wrong type", "blocks.0.attn.z as float32, but offers it as float64"),
        ("not asked", "blocks.0.attn.result without being asked"),
        ("no such site", "blocks.0.attn.zz without being asked"),
        ("missing", "did not hand over blocks.0.attn.z, which it offers"),
        ("late", "did not hand over blocks.0.attn.z"),
    ],
)
def test_a_session_that_breaks_the_protocol_is_found_out(fault, words):
    session = Faulty(equations(SPECS["sequential"]))
    session.fault = fault
    with pytest.raises(SchemaViolationError, match=words):
        Model(session).trace(IDS)


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ([("layer", 1)], "closed block 1 where block 0"),
        ([("layer", 0), ("layer", 0)], "closed block 0 where block 1"),
        ([("layer", 0)], "without closing block 1"),
        ([("signal", "logits")], "logits out of order: block 0 was to come"),
        ([("layer", 0), ("layer", 1), ("layer", 2)], "closed block 2"),
        ([], "without closing block 0"),
    ],
)
def test_layers_are_closed_once_and_in_order(calls, words):
    built = equations(SPECS["sequential"])
    session = FakeSession(built, ["logits"])
    deriving = Deriving(plan(session, built, select("logits"), IDS), Order())

    def run():
        for what, which in calls:
            if what == "layer":
                deriving.layer_done(which)
            else:
                deriving.signal(which, np.zeros((5, 11)))
        deriving.finish()

    with pytest.raises(SchemaViolationError, match=words):
        run()


def test_a_derivation_whose_ground_is_missing_is_the_sessions_fault():
    class Forgetful(FakeSession):
        def hand_over(self, site, array, observer):
            if not site.endswith("rot_k"):
                observer.signal(site, array)

    session = Forgetful(equations(SPECS["sequential"]), ["blocks.0.attn.rot_q", "blocks.0.attn.rot_k", "logits"])
    with pytest.raises(SchemaViolationError, match=r"did not hand over blocks\.0\.attn\.rot_k"):
        Model(session).trace(IDS, capture="blocks.0.attn.pattern")


def test_an_exception_of_the_observer_stops_the_run_and_is_passed_on():
    class Full(Order):
        def signal(self, site, array):
            raise MemoryError("no more")

    with pytest.raises(MemoryError, match="no more"):
        Model(FakeSession(equations(SPECS["sequential"]))).stream(IDS, Full())


def test_what_a_derivation_rested_on_is_let_go_with_its_layer():
    built = equations(model(*[sequential()] * 4))
    session = FakeSession(built, [site for site in built.steps if site.endswith((".rot_q", ".rot_k"))] + ["logits"])
    ready = plan(session, built, select("blocks.*.attn.pattern"), IDS)
    held = []

    class Watching(Order):
        def layer_done(self, layer):
            held.append(sorted(name for name in deriving._held if name not in ("tokens", "positions")))

        def signal(self, site, array):
            pass

    deriving = Deriving(ready, Watching())
    session.run(type("Request", (), {"tokens": IDS, "cuts": ready.asked, "replay": {}})(), deriving)
    deriving.finish()
    assert held == [[], [], [], []]


def test_deriving_patterns_of_many_layers_needs_the_memory_of_one():
    def peak(layers):
        built = equations(model(*[sequential()] * layers, context=None))
        rng = np.random.default_rng(0)
        rot = {
            site: rng.normal(size=built.steps[site].shape(200))
            for site in built.steps
            if site.endswith((".rot_q", ".rot_k"))
        }
        session = FakeSession(built, [*rot, "logits"])
        ready = plan(session, built, select("blocks.*.attn.pattern"), (1,) * 200)
        deriving = Deriving(ready, Order())
        gc.collect()
        tracemalloc.start()
        for layer in range(layers):
            for which in ("rot_q", "rot_k"):
                deriving.signal(f"blocks.{layer}.attn.{which}", rot[f"blocks.{layer}.attn.{which}"])
            deriving.layer_done(layer)
        deriving.finish()
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(12) < 1.1 * peak(2)


def test_a_fold_gets_whole_layers_and_keeps_none_of_them():
    alive, most = [], []

    class Fold:
        sites = ("blocks.0.attn.z", "blocks.1.attn.z", "blocks.1.attn.pattern", "logits")
        layers: list = []

        def layer(self, layer, signals):
            self.layers.append((layer, sorted(signals)))
            alive.extend(weakref.ref(array) for array in signals.values())
            most.append(sum(ref() is not None for ref in alive))

        def finish(self, ends):
            self.ends = sorted(ends)

    fold = Fold()
    Model(FakeSession(equations(SPECS["sequential"]))).fold(IDS, [fold])
    assert fold.layers == [(0, ["blocks.0.attn.z"]), (1, ["blocks.1.attn.pattern", "blocks.1.attn.z"])]
    assert fold.ends == ["logits"]
    gc.collect()
    assert most == [1, 2]
    assert not any(ref() is not None for ref in alive)


def test_several_folds_share_one_pass():
    class Fold:
        def __init__(self, *sites):
            self.sites, self.seen = sites, []

        def layer(self, layer, signals):
            self.seen += signals

        def finish(self, ends):
            self.seen += ends

    session = FakeSession(equations(SPECS["sequential"]))
    first, second = Fold("blocks.0.attn.z", "logits"), Fold("blocks.0.attn.z", "blocks.1.resid_post")
    Model(session).fold(IDS, [first, second])
    assert len(session.runs) == 1
    assert (first.seen, second.seen) == (["blocks.0.attn.z", "logits"], ["blocks.0.attn.z", "blocks.1.resid_post"])


def test_a_fold_may_keep_what_it_got():
    kept = {}

    class Fold:
        sites = ("blocks.0.attn.z",)

        def layer(self, layer, signals):
            kept.update(signals)

        def finish(self, ends):
            pass

    built = equations(SPECS["sequential"])
    folding = Folding([Fold()])
    buffer = capture(built, IDS)["blocks.0.attn.z"].copy()
    folding.signal("blocks.0.attn.z", buffer)
    buffer[...] = 0
    folding.layer_done(0)
    assert kept["blocks.0.attn.z"].any()


def test_several_prompts_give_the_traces_of_each_alone():
    opened = Model(FakeSession(equations(SPECS["sequential"])))
    prompts = [[1, 2], [3, 4, 5, 6], [7]]
    for together, prompt in zip(opened.trace_many(prompts), prompts, strict=True):
        alone = opened.trace(prompt)
        assert together.ids == tuple(prompt)
        for site in alone:
            np.testing.assert_array_equal(together[site].array, alone[site].array)


def test_replay_is_asked_of_sessions_that_can():
    with pytest.raises(CapabilityError, match="fake cannot take signals as given"):
        Model(FakeSession(equations(SPECS["sequential"]))).trace(IDS, replay={"embed": np.zeros((5, 12))})


def test_what_lasts_is_kept_as_it_is_and_the_rest_is_copied():
    array = np.arange(12.0).reshape(3, 4)
    assert np.shares_memory(keep(array, lasts=True), array)
    assert np.shares_memory(keep(array.T[1:], lasts=True), array)
    for copied in (keep(array, lasts=False), keep(array[:1], lasts=True)):  # a row would hold all of it
        assert not np.shares_memory(copied, array)
    assert not any(keep(array, lasts=lasts).flags.writeable for lasts in (True, False))
    assert array.flags.writeable
