"""Rounding to blocks of 8 bits, against ggml's own as the package gguf has it; and what a verdict makes of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llmtrace.schema.blocks import BLOCKS, FELT, in_blocks
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


def test_whole_numbers_and_further_axes_stay_as_they_are():
    experts = np.arange(6).reshape(3, 2)
    assert in_blocks("q8_0", experts) is experts
    x = np.random.default_rng(0).normal(size=(3, 4, 16))
    np.testing.assert_array_equal(in_blocks("q8_0", x), in_blocks("q8_0", x.reshape(3, 64)).reshape(x.shape))


@pytest.fixture
def quantised():
    """A capture whose products were made of rounded operands, and what says so."""
    built = equations(SPECS["sequential"])
    signals = capture(built, IDS)
    step = built.steps["blocks.0.attn.out"]
    known = inputs(IDS) | signals
    rounded = built.evaluate(step.site, lambda name: in_blocks("q8_0", np.asarray(known[name])))
    return built, signals | {step.site: rounded}, step.site


@pytest.mark.parametrize(("operands", "status"), [("", "violated"), ("q8_0", "holds")])
def test_what_rounded_operands_do_holds_where_it_is_declared(quantised, operands, status):
    built, signals, site = quantised
    kinds = dict.fromkeys(built.steps, Precision("float64", "float64")) | {
        site: Precision("float64", "float64", operands)
    }
    found = {error.site: error for error in verify(built, inputs(IDS) | signals, kinds)}[site]
    assert found.status == status
    if status == "holds":
        assert found.relative_error == pytest.approx(found.tolerance / FELT, rel=0.05)


def test_and_a_fault_of_a_few_percent_is_still_found(quantised):
    built, signals, site = quantised
    kinds = dict.fromkeys(built.steps, Precision("float64", "float64")) | {
        site: Precision("float64", "float64", "q8_0")
    }
    wrong = signals | {site: 1.05 * signals[site]}
    found = {error.site: error for error in verify(built, inputs(IDS) | wrong, kinds)}[site]
    assert found.status == "violated"
