"""Signals that are not the model's own are told from those that are, with what made them so. The oracle is a second run, of the processed weights."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

import llmtrace
from llmtrace.model import Model
from llmtrace.schema.steps import any_layer
from llmtrace.schema.verify import distance, token_axis
from tests.importing.conftest import IDS, arrays, recorded
from tests.importing.processing import processed
from tests.specs import SPECS, WeighedSession, equations, model, sequential

LAYERS = {
    "layer norm": evolve(SPECS["learned positions"], blocks=SPECS["learned positions"].blocks * 2),
    "RMS norm": model(sequential(), sequential()),
}
PROCESSING = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
WITHOUT = ("ln1.out", "ln2.out", "attn.out", "mlp.out", "attn.z_post")
"""Sites that `HookedTransformer` had no hooks for, and its bridge has."""


def both(kind, keep=lambda site: True):
    """The model, its own trace, and the import of a processed one."""
    own = equations(LAYERS[kind])
    opened = Model(WeighedSession(own, None, "float32"))
    changed = Model(WeighedSession(processed(own, layer_norm=kind == "layer norm"), None, "float32"))
    sites = list(own.steps)
    dump = {name: array for name, array in arrays(changed.trace(IDS, capture=sites)).items() if keep(name)}
    return opened.trace(IDS, capture=sites), llmtrace.import_dump(dump, opened)


@pytest.mark.parametrize(
    "keep", [lambda site: True, lambda site: not site.endswith(WITHOUT)], ids=["bridge", "HookedTransformer"]
)
@pytest.mark.parametrize("kind", LAYERS)
def test_just_the_signals_that_are_not_the_models_own_are_named(kind, keep):
    own, found = both(kind, keep)
    steps = own.equations.steps
    others = {
        site
        for site, signal in found.trace.signals.items()
        if distance(signal.array, own[site].array, token_axis(steps[site]))[0] > 1e-3
    }
    assert others
    named = {each.site for each in found.violated if not each.reason.endswith("the value itself is")}
    assert named | set(found.inherited) == others
    assert not named & set(found.inherited)


@pytest.mark.parametrize("kind", LAYERS)
def test_each_of_them_has_the_reason_that_was_done_to_it(kind):
    _, found = both(kind)
    reasons = {any_layer(each.site): each.reason for each in found.violated}
    assert "" not in reasons.values()
    assert (
        reasons["blocks.L.mlp.pre"] == "blocks.1.ln2.out, which it reads, is not the model's own; the value itself is"
    )
    said = {site: " ".join(name for name in PROCESSING if name in reason) for site, reason in reasons.items()}
    folded = {"blocks.L.ln1.out", "blocks.L.ln2.out", "ln_final.out"}
    reading = {"blocks.L.attn.q", "blocks.L.attn.k", "blocks.L.mlp.pre"}
    centred = (
        {"embed", "pos_embed", "blocks.L.attn.result", "blocks.L.attn.out", "blocks.L.mlp.out"}
        if kind == "layer norm"
        else set()
    )
    alone = set() if kind == "layer norm" else {"blocks.L.attn.out", "blocks.L.mlp.pre_linear"}
    expected = (
        dict.fromkeys(reading | alone, "")
        | dict.fromkeys(folded, "fold_ln")
        | dict.fromkeys(centred, "center_writing_weights")
    )
    assert said == expected | {"blocks.L.attn.v": "fold_value_biases", "logits": "center_unembed"}


def test_the_trace_keeps_what_was_found(tmp_path):
    _, found = both("layer norm")
    found.trace.with_weights({}).save(tmp_path / "a.trace")
    notes = "\n".join(llmtrace.load(tmp_path / "a.trace").model.notes)
    assert notes.count("ln2.out, which it reads, is not the model's own") == 1, "blocks that are alike share a note"
    assert "Does not hold: blocks.L.mlp.pre (2 times): blocks.L.ln2.out, which it reads" in notes
    assert "Does not hold: embed; pos_embed" in notes
    assert "center_writing_weights" in notes
    assert "Holds, and is not the model's own, since what it reads is not: blocks.L.resid_pre (2 times)" in notes


def spoilt(change, kind="sequential"):
    """The import of a trace in which one signal was exchanged, and what of it is violated."""
    opened, trace = recorded(kind)
    dump = {name: np.array(array) for name, array in arrays(trace).items()}
    dump |= change(dump)
    found = llmtrace.import_dump(dump, opened)
    return {each.site: each.reason for each in found.violated}


def test_a_norm_that_was_recorded_after_its_weight_is_recognised():
    at = "blocks.0.ln1"
    reasons = spoilt(lambda dump: {f"{at}.normalized": dump[f"{at}.out"]}, "learned positions")
    assert (
        reasons[f"{at}.normalized"]
        == f"it is {at}.out, after the norm's weight, as TransformerLens 1 and 2 record a layer norm"
    )


def test_axes_of_one_length_that_are_swapped_are_recognised():
    at = "blocks.1.attn.pattern"
    assert "axes query and key are swapped" in spoilt(lambda dump: {at: dump[at].swapaxes(1, 2)})[at]


def test_a_constant_factor_is_recognised_with_what_takes_it_out():
    at = "blocks.1.attn.scores"
    assert (
        "it is 2.449 times the model's: say so in a map (factor = 0.408248)"
        in spoilt(lambda dump: {at: dump[at] * np.float32(6**0.5)})[at]
    )


def test_a_bias_of_v_that_alone_was_folded_is_recognised():
    def change(dump):
        bias = equations(SPECS["learned positions"]).weights["blocks.0.attn.b_V"].astype(np.float32)
        return {"blocks.0.attn.v": dump["blocks.0.attn.v"] - bias}

    assert (
        spoilt(change, "learned positions")["blocks.0.attn.v"]
        == "its bias is folded into the output's (fold_value_biases)"
    )


def test_a_mean_that_was_much_of_a_value_is_recognised_for_all_its_rounding():
    own = equations(SPECS["sequential"])
    own = evolve(own, weights={**own.weights, "embed.W_E": own.weights["embed.W_E"] + 500})
    opened = Model(WeighedSession(own, None, "float32"))
    embed = opened.trace(IDS, capture="embed")["embed"].array
    found = llmtrace.import_dump({"embed": embed - embed.mean(-1, keepdims=True)}, opened, IDS)
    assert [each.reason for each in found.violated] == ["its mean over d_model is taken out (center_writing_weights)"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_reads_a_signal_that_is_not_the_models_own_and_is_so_itself_gets_no_reason_of_its_own(dtype):
    """Half of what the doubled v would make of it: no factor belongs to it. Rounding carries bfloat16 further than a thousandth."""
    opened, trace = recorded("sequential", dtype)
    dump = arrays(trace)
    dump["blocks.0.attn.v"] = dump["blocks.0.attn.v"] + dump["blocks.0.attn.v"]
    found = llmtrace.import_dump(dump, opened)
    reasons = {each.site: each.reason for each in found.violated}
    assert reasons.pop("blocks.0.attn.v").startswith("it is 2 times the model's: ")
    assert reasons == {
        "blocks.0.attn.z": "blocks.0.attn.v, which it reads, is not the model's own; the value itself is"
    }
    assert found.inherited == ()


@pytest.mark.parametrize(("dtype", "carried"), [("float32", 1e-3), ("bfloat16", 10 * 2.0**-6)])
def test_what_follows_from_another_embedding_is_inherited_as_far_as_rounding_lets_it_be_told(dtype, carried):
    """Beyond a thousandth, or ten times what is allowed for rounding where that is more: four times 2⁻⁸, bfloat16's."""
    own = equations(SPECS["sequential"])
    sites = list(own.steps)
    opened, changed = (
        Model(
            WeighedSession(
                evolve(own, weights={**own.weights, "embed.W_E": times * own.weights["embed.W_E"]}), None, dtype
            )
        )
        for times in (1, 1.5)
    )
    found = llmtrace.import_dump(arrays(changed.trace(IDS, capture=sites)), opened)
    assert [each.site for each in found.violated] == ["embed"]
    trace = opened.trace(IDS, capture=sites)
    apart = {
        site: max(distance(signal.array, trace[site].array, token_axis(own.steps[site])))
        for site, signal in found.trace.signals.items()
    }
    others = [site for site in sites if apart.get(site, 0) > carried and site != "embed"]
    assert found.inherited
    assert set(found.inherited) <= set(others)
    assert dtype == "bfloat16" or list(found.inherited) == others


@pytest.mark.parametrize(("noise", "explained"), [(1e-4, True), (2e-2, False)])
def test_an_explanation_may_leave_a_thousandth_of_the_difference_and_no_more(noise, explained):
    at, random = "blocks.0.mlp.out", np.random.default_rng(0)

    def change(dump):
        apart = noise * np.abs(dump[at]).mean() * random.normal(size=dump[at].shape)
        return {at: 3 * dump[at] + apart.astype(np.float32)}

    assert spoilt(change)[at].startswith("it is 3 times") is explained


def test_values_that_any_type_holds_are_not_taken_for_rounded_ones():
    at = "blocks.0.mlp.out"
    assert spoilt(lambda dump: {at: np.sign(dump[at])})[at] == ""


def test_the_first_axis_may_be_swapped_too():
    at = "blocks.0.mlp.router"
    reasons = spoilt(lambda dump: {at: np.ascontiguousarray(dump[at].T)}, "experts")
    assert reasons[at] == "its axes token and expert are swapped: say in a map how it is laid out (axes)"


def test_a_mask_of_several_numbers_is_not_explained():
    at = "blocks.1.attn.scores"

    def change(dump):
        hidden = np.isneginf(dump[at])
        return {at: np.where(hidden, np.float32(-1e9) * (1 + np.arange(len(IDS), dtype=np.float32)), dump[at])}

    assert spoilt(change)[at] == "the masks differ"


def test_nan_stays_the_reason_whatever_stands_before_it():
    noise = np.random.default_rng(0)

    def change(dump):
        spoiled = dump["blocks.0.ln2.out"] + noise.normal(size=dump["blocks.0.ln2.out"].shape).astype(np.float32)
        return {"blocks.0.ln2.out": spoiled, "blocks.0.mlp.pre": dump["blocks.0.mlp.pre"] * np.float32(np.nan)}

    assert spoilt(change)["blocks.0.mlp.pre"] == "holds NaN or infinite values"


@pytest.mark.parametrize(
    "spoil", [lambda chosen: chosen + 99, lambda chosen: chosen.astype(np.float32)], ids=["none", "float"]
)
def test_experts_that_no_equation_could_read_are_named_and_not_read(spoil):
    at = "blocks.0.mlp.expert_index"
    out = "blocks.0.mlp.out"
    reasons = spoilt(lambda dump: {at: spoil(dump[at]), out: dump[out] - dump[out].mean(-1, keepdims=True)}, "experts")
    assert "center_writing_weights" in reasons[out]
    assert "experts outside" in reasons[at] or "instead of integers" in reasons[at]


def test_a_mask_of_another_number_is_recognised():
    at = "blocks.1.attn.scores"
    reasons = spoilt(lambda dump: {at: np.where(np.isneginf(dump[at]), np.float32(-1e9), dump[at])})
    assert reasons[at] == "it holds -1e+09 where the model's mask hides a key, instead of -inf"


def test_the_least_number_of_a_type_is_a_mask():
    at = "blocks.1.attn.scores"
    assert not spoilt(lambda dump: {at: np.where(np.isneginf(dump[at]), np.finfo(np.float32).min, dump[at])})
    opened, trace = recorded()
    dump = {name: np.array(array) for name, array in arrays(trace).items()}
    dump[at] = np.where(np.isneginf(dump[at]), np.finfo(np.float32).min, dump[at])
    signal = llmtrace.import_dump(dump, opened).trace[at]
    assert signal.array.tobytes() == trace[at].array.tobytes()
    assert "the type's minimum as -inf" in str(signal.provenance)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_in_a_wider_type_is_recognised(dtype):
    opened, trace = recorded("sequential", dtype)
    dump = {name: array.astype(np.float32) if name != "tokens" else array for name, array in arrays(trace).items()}
    found = llmtrace.import_dump(dump, opened)
    assert len(found.violated) > 20
    assert {each.reason for each in found.violated} == {
        f"all its values are {dtype}'s, which explains the difference: hand it over in that type"
    }
    assert found.inherited == ()


@pytest.mark.parametrize("site", ["blocks.0.mlp.out", "blocks.1.attn.v", "blocks.1.ln1.out", "logits", "embed"])
def test_what_nothing_explains_is_given_no_reason(site):
    noise = np.random.default_rng(0)
    reasons = spoilt(lambda dump: {site: dump[site] + 0.1 * noise.normal(size=dump[site].shape).astype(np.float32)})
    assert reasons[site] == ""


def test_a_small_difference_is_not_taken_for_processing():
    """A mean that is taken out of a value and noise of its size are told apart."""
    noise = np.random.default_rng(0)
    at = "blocks.0.mlp.out"

    def change(dump):
        return {at: dump[at] + 1e-4 * noise.normal(size=dump[at].shape).astype(np.float32)}

    assert spoilt(change)[at] == ""


def test_only_what_follows_is_inherited():
    opened, trace = recorded("learned positions")
    dump = {name: np.array(array) for name, array in arrays(trace).items()}
    changed = processed(opened.equations, layer_norm=True)
    dump["logits"] = Model(WeighedSession(changed, None, "float32")).trace(IDS, capture="logits")["logits"].array
    found = llmtrace.import_dump(dump, opened)
    assert [each.site for each in found.violated] == ["logits"]
    assert found.inherited == ()


def test_a_dump_that_nothing_can_be_held_against_says_so():
    opened, trace = recorded()
    found = llmtrace.import_dump({"blocks.1.attn.z": trace["blocks.1.attn.z"].array}, opened, IDS)
    assert found.verdicts is None
    assert "Nothing could be checked" in found.unchecked
    assert found.violated == []
