"""What a format should cost, held against what ggml's and gguf's own quantisers, and the rounding of floats, do cost."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from llmtrace.comparison.formats import LEVELS, MORE, coarse, cost, plain
from llmtrace.comparison.recognised import off

RANDOM = np.random.default_rng(1)
NORMAL = RANDOM.normal(size=(64, 512)).astype(np.float32)
HEAVY = RANDOM.standard_t(4, size=(64, 512)).astype(np.float32)
"""Tails as heavy as those of trained matrices, or heavier."""
UNEVEN = NORMAL * np.exp(RANDOM.normal(size=(64, 1))).astype(np.float32)
"""Rows of unlike sizes."""


def taken(kind, x):
    """What the package gguf makes of it, or ggml where that cannot."""
    gguf = pytest.importorskip("gguf")
    writing = pytest.importorskip("llmtrace_llamacpp.writing")
    one = gguf.GGMLQuantizationType[kind]
    return off(gguf.dequantize(writing._quantised(x, one), one).reshape(x.shape), x)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
@pytest.mark.parametrize("x", [NORMAL, HEAVY, UNEVEN], ids=["normal", "heavy", "uneven"])
def test_plain_blocks_cost_what_they_should(kind, x):
    assert 0.9 < taken(kind, x) / cost(kind, x, (1,)) < 1.05


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"])
@pytest.mark.parametrize("x", [NORMAL, HEAVY, UNEVEN], ids=["normal", "heavy", "uneven"])
def test_quantisers_that_search_cost_no_more_than_is_allowed(kind, x):
    assert 0.5 < taken(kind, x) / cost(kind, x, (1,)) < MORE


@pytest.mark.parametrize(("kind", "dtype"), [("F16", np.float16), ("BF16", ml_dtypes.bfloat16)])
def test_rounded_floats_cost_what_they_should(kind, dtype):
    found = off(NORMAL.astype(dtype).astype(np.float32), NORMAL)
    assert found / cost(kind, NORMAL, (1,)) == pytest.approx(1, abs=0.05)


def test_blocks_run_along_the_given_axes():
    x = NORMAL[:32, :64].copy()
    x[5] *= 100  # alone in its blocks along rows; across them it is in every block, and rounds away the rest
    assert cost("q8_0", x, (0,)) > 2 * cost("q8_0", x, (1,))
    heads = NORMAL.reshape(4, 16, 512)
    assert cost("q4_0", heads, (2,)) == pytest.approx(cost("q4_0", NORMAL, (1,)), rel=0.02)


def test_an_unknown_format_costs_nobody_knows_what_and_zeros_cost_nothing():
    assert math.isnan(cost("tq1_0", NORMAL, (1,)))
    assert cost("q4_0", np.zeros((2, 32), np.float32), (1,)) == 0


def test_coarse_is_what_float32_is_not():
    assert [kind for kind in ("F32", "float64", "F16", "BF16", "Q8_0", "q4_k") if coarse(kind)] == [
        "F16",
        "BF16",
        "Q8_0",
        "q4_k",
    ]
    assert plain("F16") == "float16" and plain("Q4_K") == "q4_k"
    assert all(name == name.lower() for name in LEVELS)
