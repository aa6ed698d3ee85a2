"""Rounding to blocks of 8 bits, against ggml's own as the package gguf has it; and what a verdict makes of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llmtrace.schema.blocks import BLOCKS, FELT, ROUNDED, TENSOR, in_blocks, in_tensor, rounded_to
from llmtrace.schema.precision import Precision
from llmtrace.schema.verify import distance, verify
from tests.specs import SPECS, capture, equations, inputs

IDS = [3, 1, 4, 1, 5]


def test_it_is_ggmls_rounding_but_for_how_scales_are_stored():
    gguf = pytest.importorskip("gguf")
    x = np.random.default_rng(0).normal(size=(50, 64)) * np.logspace(-2, 2, 64)
    theirs = gguf.dequantize(
        gguf.quantize(x.astype(np.float32), gguf.GGMLQuantizationType.Q8_0), gguf.GGMLQuantizationType.Q8_0
    )
    ours = in_blocks("q8_0", x)
    assert distance(ours, theirs.astype(np.float64))[1] < 2.0**-10  # scales are float16 there
    assert distance(ours, x)[0] > 4 * 2.0**-10  # which is not what rounding itself costs


@given(
    arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 70)), elements=st.floats(-1e6, 1e6)),
    st.sampled_from(sorted(BLOCKS)),
)
@settings(deadline=None)
def test_no_number_moves_by_more_than_half_a_step_of_its_block(x, kind):
    length = BLOCKS[kind]
    moved = np.abs(in_blocks(kind, x) - x)
    for start in range(0, x.shape[1], length):
        block = slice(start, start + length)
        step = np.abs(x[:, block]).max(-1, keepdims=True) / 127
        assert (moved[:, block] <= step * (0.5 + 1e-9)).all()


def test_one_scale_for_all_is_onnx_s_rounding():
    """By the reference implementation of its operator."""
    pytest.importorskip("onnx")
    from onnx import ValueInfoProto, helper
    from onnx.reference import ReferenceEvaluator

    made = helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])
    graph = helper.make_graph([made], "g", [ValueInfoProto(name="x")], [ValueInfoProto(name=name) for name in "ysz"])
    for shift in (0.0, -1.0, 7.0, -7.0):  # on both sides of zero, and on one: zero is always a level
        x = (np.random.default_rng(0).normal(size=(50, 64)) + shift).astype(np.float32)
        levels, scale, zero = ReferenceEvaluator(helper.make_model(graph)).run(None, {"x": x})
        theirs = (levels.astype(np.float64) - zero) * scale
        assert distance(in_tensor(x.astype(np.float64)), theirs)[0] < 1e-4
        assert distance(in_tensor(x.astype(np.float64)), x.astype(np.float64))[0] > 1e-3  # which is what rounding costs


@given(arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 70)), elements=st.floats(-1e6, 1e6)))
@settings(deadline=None)
def test_no_number_moves_by_more_than_half_a_step_of_its_tensor(x):
    step = (max(x.max(), 0.0) - min(x.min(), 0.0)) / 255
    assert (np.abs(in_tensor(x) - x) <= step * (0.5 + 1e-9)).all()
    assert (in_tensor(x)[x == 0] == 0).all()


def test_a_token_is_rounded_by_the_largest_of_all():
    x = np.array([[0.3, -0.3], [255.0, 0.0]])
    assert not in_tensor(x)[0].any()
    assert in_tensor(x[:1])[0].all()


def test_whole_numbers_and_further_axes_stay_as_they_are():
    experts = np.arange(6).reshape(3, 2)
    assert all(rounded_to(kind, experts) is experts for kind in ROUNDED)
    x = np.random.default_rng(0).normal(size=(3, 4, 16))
    np.testing.assert_array_equal(in_blocks("q8_0", x), in_blocks("q8_0", x.reshape(3, 64)).reshape(x.shape))


@pytest.fixture(params=["q8_0", TENSOR])
def quantised(request):
    """A capture whose products were made of rounded operands, what says so, and how they were rounded."""
    built = equations(SPECS["sequential"])
    signals = capture(built, IDS)
    step = built.steps["blocks.0.attn.out"]
    known = inputs(IDS) | signals
    rounded = built.evaluate(step.site, lambda name: rounded_to(request.param, np.asarray(known[name])))
    return built, signals | {step.site: rounded}, step.site, request.param


@pytest.mark.parametrize("status", ["violated", "holds"])
def test_what_rounded_operands_do_holds_where_it_is_declared(quantised, status):
    built, signals, site, kind = quantised
    operands = kind if status == "holds" else ""
    kinds = dict.fromkeys(built.steps, Precision("float64", "float64")) | {
        site: Precision("float64", "float64", operands)
    }
    found = {error.site: error for error in verify(built, inputs(IDS) | signals, kinds)}[site]
    assert found.status == status


def test_and_a_fault_of_a_few_percent_is_still_found(quantised):
    built, signals, site, kind = quantised
    kinds = dict.fromkeys(built.steps, Precision("float64", "float64")) | {site: Precision("float64", "float64", kind)}
    clean = {error.site: error for error in verify(built, inputs(IDS) | signals, kinds)}[site]
    wrong = signals | {site: 1.05 * signals[site]}
    found = {error.site: error for error in verify(built, inputs(IDS) | wrong, kinds)}[site]
    assert found.status == "violated"
    assert found.tolerance == pytest.approx(FELT * clean.relative_error, rel=1e-3), "what rounding does, three times"
