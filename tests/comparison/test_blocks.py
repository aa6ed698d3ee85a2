"""One lost block among many is seen, and no quantiser's right work is taken for one."""

from __future__ import annotations

import numpy as np
import pytest

from llmtrace.comparison.blocks import MOST, beyond_blocks
from llmtrace.comparison.formats import MORE, cost
from llmtrace.comparison.pair import Pair
from llmtrace.comparison.recognised import off

RANDOM = np.random.default_rng(1)
NORMAL = RANDOM.normal(size=(128, 512)).astype(np.float32)
SHAPES = {
    "normal": NORMAL,
    "heavy": RANDOM.standard_t(4, size=(128, 512)).astype(np.float32),
    "uneven": NORMAL * np.exp(RANDOM.normal(size=(128, 1))).astype(np.float32),
    "one-sided": RANDOM.exponential(size=(128, 512)).astype(np.float32),
}
ROWS = ("d_mlp", "d_model")


def quantised(kind, x):
    """What the package gguf makes of it, or ggml where that cannot."""
    gguf = pytest.importorskip("gguf")
    writing = pytest.importorskip("llmtrace_llamacpp.writing")
    one = gguf.GGMLQuantizationType[kind]
    return gguf.dequantize(writing._quantised(x, one), one).reshape(x.shape)


def told(kind, x, found, axes=ROWS, rows=(1,)):
    return beyond_blocks(kind, Pair("w", axes, x, found, {}, rows), cost(kind, x, rows))


@pytest.mark.parametrize("kind", [name.upper() for name in MOST])
@pytest.mark.parametrize("x", SHAPES.values(), ids=SHAPES)
def test_what_a_quantiser_does_is_within_its_blocks(kind, x):
    assert told(kind, x, quantised(kind, x)) == ""


@pytest.mark.parametrize("kind", [name.upper() for name in MOST])
@pytest.mark.parametrize("x", SHAPES.values(), ids=SHAPES)
def test_neither_is_what_one_gives_up_for_numbers_that_count_a_thousand_times_as_much(kind, x):
    gguf = pytest.importorskip("gguf")
    writing = pytest.importorskip("llmtrace_llamacpp.writing")
    one = gguf.GGMLQuantizationType[kind]
    length, size = gguf.GGML_QUANT_SIZES[one]
    packed = np.zeros((len(x), x.shape[1] // length * size), np.uint8)
    weights = np.exp(2 * np.random.default_rng(3).normal(size=x.shape[1])).astype(np.float32)
    writing.load().api.ggml_quantize_chunk(
        int(one), x.ctypes.data, packed.ctypes.data, 0, len(x), x.shape[1], weights.ctypes.data
    )
    assert told(kind, x, gguf.dequantize(packed, one).reshape(x.shape)) == ""


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q6_K"])
def test_a_block_that_is_lost_is_named_though_the_whole_is_within_what_the_format_explains(kind):
    lost = NORMAL.copy()
    lost[100, 256:512] = 0
    lost = quantised(kind, lost)
    if kind.startswith("Q4"):
        assert off(lost, NORMAL) < MORE * cost(kind, NORMAL, (1,))
    assert told(kind, NORMAL, lost).startswith(f"row 100 (d_mlp), {16 if kind == 'Q6_K' else 8} blocks of ")


def test_one_block_and_several_rows():
    right = quantised("Q4_1", NORMAL)
    one, several = right.copy(), right.copy()
    one[7, 32:64] = 0
    several[3:6, :32] = 0
    assert told("Q4_1", NORMAL, one).startswith("row 7 (d_mlp), 1 block of 32: off by ")
    assert told("Q4_1", NORMAL, one).endswith(" steps, where Q4_1 explains half of one")
    assert told("Q4_1", NORMAL, several).startswith("3 rows (d_mlp) from row 3 on, 3 blocks of 32: off by up to ")


def test_blocks_run_along_the_axes_that_products_sum_over_and_rows_are_counted_as_stored():
    x = np.ascontiguousarray(NORMAL.reshape(4, 32, 512).transpose(0, 2, 1))  # [head, d_model, d_head]
    found = np.ascontiguousarray(quantised("Q5_0", NORMAL).reshape(4, 32, 512).transpose(0, 2, 1))
    found[2, 64:96, 5] = 0
    axes = ("head", "d_model", "d_head")
    assert told("Q5_0", x, found, axes, (1,)).startswith("row 69 (head, d_head), 1 block of 32")


def test_one_number_of_a_block_is_named_alone():
    found = quantised("Q4_0", NORMAL)
    found[9, 40] += 6.0
    assert (
        told("Q4_0", NORMAL, found)
        == f"one number differs: [9, 40] is {found[9, 40]:.4g} instead of {NORMAL[9, 40]:.4g}"
    )


def test_nothing_is_said_of_formats_whose_blocks_are_not_known():
    zero = np.zeros_like(NORMAL)
    assert [told(kind, NORMAL, zero) for kind in ("F16", "int4", "Q2_K", "Q3_K")] == [""] * 4
    assert told("Q4_0", NORMAL[:, :40], zero[:, :40]) == "", "no whole blocks"
