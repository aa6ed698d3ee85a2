"""Other weights in the running model: on every family, what it then computes is what the equations say of these weights, and afterwards nothing
is left of them, in memory or on disk."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import llmtrace
from llmtrace.errors import CapabilityError, ModelOpenError, OptionError
from llmtrace.schema.steps import any_layer, layer_of
from llmtrace.schema.verify import distance
from llmtrace.testing.tiny import TINY

TOKENS = [5, 17, 3, 88, 41, 41, 9]
TIED = {
    "gemma",
    "gemma2",
    "gemma3_text",
    "vaultgemma",
    "smollm3",
    "ernie4_5",
    "gpt2",
    "gpt_bigcode",
    "gpt_neo",
    "opt",
    "starcoder2",
}
TIED |= {"cohere", "cohere2", "falcon", "bloom", "mpt"}


def logits(model):
    return model.trace(TOKENS, capture="logits")["logits"].array


def of_each_kind(model):
    """A weight of each kind, of the middle block or the ends, with those that it is tied to."""
    groups = {name: sorted(group) for group in model.session.tied for name in group}
    names = [name for name in model.session.replaceable if layer_of(name) in (None, 1)]
    return [groups.get(name, [name]) for name in {any_layer(name): name for name in names}.values()]


def moved(model, names):
    random = np.random.default_rng(0)
    first = np.asarray(model.weights[names[0]], np.float64)
    new = first + 0.3 * first.std() * random.normal(size=first.shape)
    return {name: new if model.weights[name].shape == new.shape else new.T for name in names}


@pytest.mark.parametrize("family", TINY)
def test_every_weight_can_be_replaced_and_what_is_computed_is_what_the_equations_say(opened, tiny, family):
    model = opened(family, attention="sdpa" if family == "falcon" else "eager")
    assert dict(model.session.irreplaceable) == {}
    assert set(model.session.replaceable) == set(model.weights)
    assert list(model.session.tied) == ([{"embed.W_E", "unembed.W_U"}] if family in TIED else [])
    before = logits(model)
    with llmtrace.open(tiny(family), backend="reference") as reference:
        for names in of_each_kind(model):
            weights = moved(model, names)
            with model.replaced(weights), reference.replaced(weights):
                assert distance(logits(model), logits(reference))[0] < 1e-5, names
    np.testing.assert_array_equal(logits(model), before)


def test_experts_are_replaced_one_by_one(opened, tiny):
    """One expert's matrix of a stack that lies in one tensor with another stack."""
    model, name = opened("mixtral"), "blocks.1.mlp.W_gate"
    new = np.array(model.weights[name])
    new[2] = 0
    beside = np.array(model.weights["blocks.1.mlp.W_in"])
    with model.replaced({name: new}), llmtrace.open(tiny("mixtral"), backend="reference") as reference:
        np.testing.assert_array_equal(model.weights["blocks.1.mlp.W_in"], beside)
        with reference.replaced({name: new}):
            assert distance(logits(model), logits(reference))[0] < 1e-5


def test_a_trace_that_was_made_before_keeps_the_weights_that_it_was_made_with(opened):
    """Also where they are no tensor of the file, so that they are read from memory."""
    model, name = opened("mixtral"), "blocks.1.mlp.W_gate"
    trace, own, before = model.trace(TOKENS), model.weights, np.array(model.weights[name])
    with model.replaced({name: 2 * before}):
        np.testing.assert_array_equal(own[name], before)
        np.testing.assert_array_equal(model.weights[name], 2 * before)
        assert {error.status for error in trace.verify()} <= {"holds", "unchecked", "unavailable"}
        with model.replaced({name: 3 * before}):
            np.testing.assert_array_equal(own[name], before)
            np.testing.assert_array_equal(model.weights[name], 3 * before)
        np.testing.assert_array_equal(model.weights[name], 2 * before)
    np.testing.assert_array_equal(model.weights[name], before)


def test_numbers_that_the_models_type_cannot_hold_are_refused(opened):
    model = opened("llama", "shipped", dtype="float16")
    before = logits(model)
    new = np.full(model.weights["ln_final.w"].shape, 1e5)
    with pytest.raises(OptionError, match=r"ln_final\.w .* too large for float16"), model.replaced({"ln_final.w": new}):
        pass
    np.testing.assert_array_equal(logits(model), before)


def test_tied_weights_are_given_together_and_fit_each_other(opened):
    model = opened("gpt2")
    before = logits(model)
    table, head = (np.array(model.weights[name]) for name in ("embed.W_E", "unembed.W_U"))
    one, unlike = {"embed.W_E": 2 * table}, {"embed.W_E": 2 * table, "unembed.W_U": head}
    alone = r"embed\.W_E lies in the same memory as unembed\.W_U.*give them together"
    with pytest.raises(OptionError, match=alone), model.replaced(one):
        pass
    both = r"embed\.W_E and unembed\.W_U lie in the same memory \(transformer\.wte\.weight\)"
    with pytest.raises(OptionError, match=both), model.replaced(unlike):
        pass
    np.testing.assert_array_equal(logits(model), before)
    with model.replaced({"embed.W_E": 2 * table, "unembed.W_U": 2 * head}):
        assert distance(logits(model), before)[0] > 0.1
    np.testing.assert_array_equal(logits(model), before)


def test_numbers_are_rounded_to_the_models_type(opened):
    model = opened("llama", "shipped", dtype="bfloat16")
    name = "blocks.0.mlp.W_in"
    own = np.array(model.weights[name])
    new = own + np.float32(0.01)
    before = logits(model)
    with model.replaced({name: new}):
        np.testing.assert_array_equal(model.weights[name], new.astype(ml_dtypes.bfloat16))
        np.testing.assert_array_equal(model.equations.weights[name], new.astype(ml_dtypes.bfloat16))
        assert {error.status for error in model.verify(TOKENS)} <= {"holds", "unchecked", "unavailable"}
        other = logits(model)
    assert not np.array_equal(other, before)
    np.testing.assert_array_equal(logits(model), before)
    np.testing.assert_array_equal(model.weights[name], own)  # as the file has it, and not as it was rounded
    assert not np.array_equal(own, own.astype(ml_dtypes.bfloat16))


def test_nan_and_the_last_bit_come_back(opened):
    model, name = opened("llama"), "blocks.2.attn.W_O"
    parameter = dict(model.session.model.named_parameters())["model.layers.2.self_attn.o_proj.weight"]
    with torch.no_grad():
        parameter[0, 0] = float("nan")
        parameter[0, 1] = -0.0
    held = parameter.detach().clone()
    with model.replaced({name: np.ones(model.weights[name].shape)}):
        assert not torch.equal(parameter.nan_to_num(), held.nan_to_num())
    np.testing.assert_array_equal(parameter.detach().view(torch.int32), held.view(torch.int32))


def test_the_file_is_not_written(opened, tiny):
    files = {path: path.read_bytes() for path in tiny("gpt2").iterdir() if path.is_file()}
    model = opened("gpt2")
    for names in of_each_kind(model):
        with model.replaced(moved(model, names)):
            logits(model)
    assert {path: path.read_bytes() for path in files} == files


def test_several_prompts_at_once_run_with_the_replaced_weights_too(opened):
    model = opened("llama")
    with model.replaced(moved(model, ["blocks.0.mlp.W_out"])):
        one, _ = model.trace_many([TOKENS, TOKENS[:3]], capture="logits")
        assert distance(one["logits"].array, logits(model))[0] < 1e-5
    assert distance(one["logits"].array, logits(model))[0] > 1e-3


def test_a_closed_model_replaces_nothing(opened):
    model = opened("llama")
    weights = moved(model, ["ln_final.w"])
    model.close()
    with pytest.raises(ModelOpenError, match="closed"), model.replaced(weights):
        pass


def test_what_cannot_be_replaced_is_said_with_the_reason(opened):
    model = opened("llama")
    model.session.irreplaceable = {"ln_final.w": "it is computed from x, and that cannot be undone exactly"}
    model.session.replaceable = ()
    weights = {"ln_final.w": model.weights["ln_final.w"]}
    why = r"ln_final\.w cannot be replaced on the backend torch: it is computed from x"
    with pytest.raises(CapabilityError, match=why), model.replaced(weights):
        pass
