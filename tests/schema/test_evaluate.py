"""One evaluator: what is known is taken, what is not is computed, and nothing is held longer than it is read."""

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from llmtrace.errors import SignalUnavailableError, UnknownSignalError
from tests.specs import CLEAR, SPECS, capture, equations, inputs, model, sequential, specs

IDS = (1, 4, 2, 4)


@given(specs(), st.data())
def test_running_for_some_sites_gives_what_running_for_all_gives(spec, data):
    built = equations(spec)
    wanted = data.draw(st.lists(st.sampled_from(list(built.steps)), unique=True))
    everything = capture(built, IDS)
    found = dict(built.run(inputs(IDS), wanted))
    assert list(found) == [site for site in built.steps if site in wanted]
    for site, array in found.items():
        np.testing.assert_array_equal(array, everything[site])


@given(specs(), st.data())
def test_taking_a_signal_as_given_changes_what_follows_and_nothing_else(spec, data):
    built = equations(spec)
    site = data.draw(st.sampled_from([s for s, step in built.steps.items() if step.equation.name != "expert_index"]))
    clean = capture(built, IDS)
    given_signal = np.where(np.isfinite(clean[site]), clean[site] + 0.25, clean[site])
    found = dict(built.run(inputs(IDS) | {site: given_signal}, list(built.steps)))
    np.testing.assert_array_equal(found[site], given_signal)
    downstream = {site}
    for name, step in built.steps.items():
        if downstream & set(step.inputs):
            downstream.add(name)
        if name not in downstream:
            np.testing.assert_array_equal(found[name], clean[name])
    if site != "logits" and not site.endswith((".result", ".sink")):  # nothing reads these
        assert "logits" in downstream


def test_given_signals_are_not_computed():
    built = equations(SPECS["sequential"])
    signals = capture(built, IDS)
    bare = evolve(built, weights={name: w for name, w in built.weights.items() if name.startswith("unembed")})
    found = dict(bare.run(inputs(IDS) | {"ln_final.out": signals["ln_final.out"]}, ["logits"]))
    np.testing.assert_array_equal(found["logits"], signals["logits"])


def test_a_run_holds_what_is_still_to_be_read_and_no_more():
    import tracemalloc

    def peak(layers):
        built = equations(model(*[sequential()] * layers, context=None))
        ids = [1] * 200
        tracemalloc.start()
        for _ in built.run(inputs(ids), ["logits"]):
            pass
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(12) < 1.1 * peak(2)


def test_looking_computes_each_site_once():
    built = equations(SPECS["sequential"])
    calls = []

    class Counting(type(built)):
        def evaluate(self, site, look):
            calls.append(site)
            return super().evaluate(site, look)

    counting = Counting(built.spec, built.weights)
    look = counting.looking(inputs(IDS))
    look("logits")
    look("blocks.0.attn.pattern")
    assert len(calls) == len(set(calls))


def test_a_span_names_what_is_gone_through_and_what_it_rests_on():
    built = equations(SPECS["sequential"])
    span = built.span("blocks.0.attn.z", ["blocks.0.attn.rot_q", "blocks.0.attn.rot_k", "blocks.0.attn.v"])
    assert span.through == ("blocks.0.attn.z", "blocks.0.attn.pattern", "blocks.0.attn.scores")
    assert set(span.known) == {"blocks.0.attn.v", "blocks.0.attn.rot_q", "blocks.0.attn.rot_k", "positions"}
    assert span.weights == span.opaque == ()


def test_a_span_stops_at_the_nearest_known_signal():
    built = equations(SPECS["sequential"])
    assert built.span("blocks.0.attn.z", list(built.steps)).through == ("blocks.0.attn.z",)


def test_weights_that_are_missing_are_counted():
    built = evolve(equations(SPECS["sequential"]), weights={})
    with pytest.raises(SignalUnavailableError, match=r"the weight blocks\.0\.attn\.W_Q and 1 more"):
        built.derivable("blocks.0.attn.q", ["blocks.0.ln1.out"])


def test_a_refusal_says_what_for_and_claims_nothing_about_what_was_captured():
    built = evolve(equations(SPECS["sequential"]), weights={})
    with pytest.raises(SignalUnavailableError, match=r"^blocks\.0\.attn\.v cannot be checked: missing the weight"):
        built.derivable("blocks.0.attn.v", ["blocks.0.attn.v", "blocks.0.ln1.out"], purpose="checked")
    with pytest.raises(SignalUnavailableError, match=r"^blocks\.0\.attn\.v cannot be derived: missing the weight"):
        built.derivable("blocks.0.attn.v", ["blocks.0.ln1.out"])


def test_a_name_that_is_no_site_is_an_error_with_near_names():
    with pytest.raises(UnknownSignalError, match=r"'logit' is not a site of this fake model\. Did you mean logits"):
        equations(SPECS["sequential"]).step("logit")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CLEAR)
def test_the_equations_compute_in_the_type_that_is_asked_for(name, dtype):
    built = evolve(equations(SPECS[name]), dtype=dtype)
    for site, array in capture(built, IDS).items():
        assert array.dtype == (np.int64 if site.endswith("expert_index") else dtype), site


def test_what_if_a_field_of_the_spec_were_another():
    built = equations(SPECS["sequential"])
    block = built.spec.blocks[0]
    other = evolve(
        block, branches=(evolve(block.branches[0], module=evolve(block.attention, scale=1.0)), block.branches[1])
    )
    changed = evolve(built, spec=evolve(built.spec, blocks=(other, built.spec.blocks[1])))
    a, b = capture(built, IDS), capture(changed, IDS)
    np.testing.assert_array_equal(a["blocks.0.attn.rot_q"], b["blocks.0.attn.rot_q"])
    seen = np.isfinite(a["blocks.0.attn.scores"])
    np.testing.assert_allclose(b["blocks.0.attn.scores"][seen], a["blocks.0.attn.scores"][seen] * 6**0.5, rtol=1e-12)
