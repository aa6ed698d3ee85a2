"""Other weights for a while: what the model, its equations and its traces then say, and what is refused before anything is touched."""

from __future__ import annotations

import numpy as np
import pytest

import llmtrace
from llmtrace.errors import BackendError, CapabilityError, OptionError
from llmtrace.model import Model
from llmtrace.replacing import check_tied
from tests.specs import SPECS, FakeSession, equations

PROMPT = "a f e b o d c a f e b o d c"
HEAD = "blocks.1.attn.W_O"


@pytest.fixture
def model():
    with llmtrace.open("builtin:induction", backend="reference") as opened:
        yield opened


def logits(model):
    return model.trace(PROMPT, capture="logits")["logits"].array


def without_head(model, head):
    weight = np.array(model.weights[HEAD])
    weight[head] = 0
    return {HEAD: weight}


def test_a_head_whose_output_matrix_is_nought_is_a_head_that_is_ablated(model):
    for head in (0, 1):
        ablated = model.trace(PROMPT, capture="logits", edits=[llmtrace.ablate("blocks.1.attn.z_post", heads=[head])])
        with model.replaced(without_head(model, head)) as same:
            assert same is model
            np.testing.assert_array_equal(logits(model), ablated["logits"].array)


def test_nothing_replaced_is_the_model(model):
    before = logits(model)
    with model.replaced({}):
        np.testing.assert_array_equal(logits(model), before)


def test_the_model_is_as_before_also_after_an_exception(model):
    before, equations = logits(model), model.equations
    with pytest.raises(ZeroDivisionError), model.replaced(without_head(model, 0)):
        assert not np.array_equal(logits(model), before)
        raise ZeroDivisionError
    np.testing.assert_array_equal(logits(model), before)
    assert model.equations is equations


def test_equations_and_what_is_derived_have_the_replaced_weights(model):
    """Also plans, which the model remembers and which hold equations."""
    model.trace(PROMPT)
    with model.replaced(without_head(model, 0)):
        assert not model.equations.weights[HEAD][0].any()
        assert not model.weights[HEAD][0].any()
        trace = model.trace(PROMPT)
        assert {error.status for error in trace.verify()} == {"holds"}
        assert {error.status for error in model.verify(PROMPT)} == {"holds"}
        derived = model.trace(PROMPT, capture=["blocks.1.attn.z_post"])
    assert not derived["blocks.1.attn.result"].array[:, 0].any(), "a trace that was made meanwhile keeps them"
    assert {error.status for error in trace.verify()} == {"holds"}
    assert model.trace(PROMPT)["blocks.1.attn.out"].array.any()
    assert {error.status for error in model.trace(PROMPT).verify()} == {"holds"}


def test_one_replacement_stands_within_another(model):
    both = {HEAD: np.zeros_like(model.weights[HEAD])}
    with model.replaced({HEAD: 0.9 * model.weights[HEAD]}):
        outer = logits(model)
        with model.replaced(both):
            assert not np.array_equal(logits(model), outer)
        np.testing.assert_array_equal(logits(model), outer)
        assert model.equations.weights[HEAD][1].any()


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (
            {"blocks.1.attn.W_Q0": np.zeros(3)},
            r"'blocks\.1\.attn\.W_Q0' is no weight of builtin:induction\. Did you mean blocks\.1\.attn\.W_Q",
        ),
        ({HEAD: np.zeros((2, 64, 32))}, r"shape \[2, 64, 32\], and it has \[2, 32, 64\] \[head d_value d_model\]"),
        ({HEAD: np.zeros((2, 32, 64), int)}, "floating-point"),
        ({HEAD: np.where(np.arange(64) == 5, np.nan, np.zeros((2, 32, 64)))}, r"not finite: nan at \[0, 0, 5\]"),
        ({HEAD: np.where(np.arange(64) == 6, -np.inf, np.zeros((2, 32, 64)))}, r"not finite: -inf at \[0, 0, 6\]"),
    ],
)
def test_what_cannot_be_a_weight_is_refused_and_nothing_is_touched(model, weights, says):
    before = logits(model)
    with (
        pytest.raises(OptionError, match=says),
        model.replaced({"ln_final.w": 2 * model.weights["ln_final.w"], **weights}),
    ):
        raise AssertionError
    np.testing.assert_array_equal(logits(model), before)


@pytest.mark.parametrize(
    ("reasons", "why"), [({HEAD: "it is computed"}, "it is computed"), ({}, "its numbers are not at hand")]
)
def test_what_cannot_be_replaced_is_refused_with_the_reason(model, reasons, why):
    model.session.replaceable, model.session.irreplaceable = ("ln_final.w",), reasons
    weights = {name: model.weights[name] for name in ("ln_final.w", HEAD)}
    with pytest.raises(CapabilityError) as caught, model.replaced(weights):
        raise AssertionError
    assert str(caught.value) == f"{HEAD} cannot be replaced on the backend reference: {why}."


def test_what_lies_in_one_memory_is_given_together(model):
    """Of a group, some of which is given; of a group of which nothing is given, nothing is said."""
    tied = [{"blocks.0.attn.W_Q", "blocks.0.attn.W_K"}, {"embed.W_E", "unembed.W_U", "ln_final.w"}]
    check_tied(tied, [], "b")
    check_tied(tied, ["embed.W_E", "ln_final.w", "unembed.W_U", HEAD], "b")
    alone = r"^embed\.W_E lies in the same memory as ln_final\.w, unembed\.W_U on the backend b, so that .*: give them together\.$"
    with pytest.raises(OptionError, match=alone):
        check_tied(tied, ["embed.W_E"], "b")
    with pytest.raises(OptionError, match=r"^ln_final\.w lies in the same memory as embed\.W_E on"):
        check_tied(tied, ["ln_final.w", "unembed.W_U"], "b")
    model.session.tied = tied
    with (
        pytest.raises(OptionError, match="on the backend reference"),
        model.replaced({"ln_final.w": model.weights["ln_final.w"]}),
    ):
        raise AssertionError


def test_a_backend_that_cannot_says_which_can():
    model = Model(FakeSession(equations(SPECS["sequential"])))
    with (
        pytest.raises(CapabilityError, match=r"cannot compute with other weights.*torch and reference"),
        model.replaced({}),
    ):
        pass


def test_what_a_backend_raises_meanwhile_is_its_fault_and_names_the_call(model):
    def broken(weights):
        raise KeyError("x")

    model.session.replaced = broken
    with pytest.raises(BackendError, match="reference failed in replaced"), model.replaced({}):
        pass
