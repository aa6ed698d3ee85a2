"""What was done to a tensor is told from the tensor: each mistake is made here by hand, and nothing is told of one that has no name."""

from __future__ import annotations

from functools import partial

import ml_dtypes
import numpy as np
import pytest

from llmtrace.comparison.orders import copied
from llmtrace.comparison.pair import Pair
from llmtrace.comparison.recognised import off, recognise

LIMIT = 1e-6
RANDOM = np.random.default_rng(0)
HEADS = ("head", "d_model", "d_head")
Q = RANDOM.normal(size=(4, 64, 16)).astype(np.float32)
"""A matrix of queries by heads."""
OUT = RANDOM.normal(size=(96, 64)).astype(np.float32)
NORM = (1 + 0.3 * RANDOM.normal(size=64)).astype(np.float32)
TABLE = RANDOM.normal(size=(40, 64)).astype(np.float32)


def told(reference, candidate, axes, limit=LIMIT, others=None, rows=()):
    names = {name: partial(np.asarray, array) for name, array in (others or {}).items()}
    return recognise(Pair("w", axes, reference, candidate, names, rows), limit).words


def stored(w):
    """Queries as a checkpoint stores them, [head d_head, d_model]."""
    return w.transpose(0, 2, 1).reshape(-1, w.shape[1])


def loaded(matrix):
    return matrix.reshape(4, 16, 64).transpose(0, 2, 1)


def test_a_reference_that_is_not_finite_is_what_is_told():
    broken = OUT.copy()
    broken[3, 5] = np.nan
    assert told(broken, OUT, ("d_mlp", "d_model")) == "in the reference, 1 number is NaN: [3, 5]"


def test_a_norm_that_is_less_or_more_by_one():
    assert told(NORM, NORM - 1, ("d_model",)).startswith("less by 1")
    assert told(NORM, NORM + 1, ("d_model",)).startswith("more by 1")


@pytest.mark.parametrize(("factor", "said"), [(2, "2"), (0.5, "0.5"), (1.01, "1.01"), (-1, "-1"), (1 / 3, "0.3333")])
def test_a_factor(factor, said):
    assert told(OUT, (factor * OUT).astype(np.float32), ("d_mlp", "d_model")) == f"multiplied by {said}"


@pytest.mark.parametrize(("dtype", "name"), [(np.float16, "float16"), (ml_dtypes.bfloat16, "bfloat16")])
def test_a_detour_through_a_smaller_type(dtype, name):
    assert told(OUT, OUT.astype(dtype).astype(np.float32), ("d_mlp", "d_model")) == f"rounded to {name}"


def test_a_square_matrix_of_heads_is_transposed_as_it_is_stored():
    assert told(Q, loaded(stored(Q).T), HEADS) == "transposed"


def test_another_shape_is_transposed_and_read_in_the_old_one():
    assert told(OUT, OUT.T.reshape(96, 64), ("d_mlp", "d_model")) == "transposed, and read in the old shape"
    assert told(OUT, OUT[:50], ("d_mlp", "d_model")) == "has shape [50, 64] instead of [96, 64]"


def test_rows_of_heads_in_the_other_layout_of_rotary():
    pairs = stored(Q).reshape(4, 2, 8, 64).swapaxes(1, 2).reshape(64, 64)
    halves = stored(Q).reshape(4, 8, 2, 64).swapaxes(1, 2).reshape(64, 64)
    assert told(Q, loaded(pairs), HEADS) == "rows of each head permuted: rotary pairs as neighbours"
    assert told(Q, loaded(halves), HEADS) == "rows of each head permuted: rotary pairs half a head apart"


def test_rows_of_a_table_are_shifted_either_way():
    assert told(TABLE, np.roll(TABLE, 1, 0), ("vocab", "d_model")) == "rows of vocab shifted down by 1"
    assert told(TABLE, np.roll(TABLE, -2, 0), ("position", "d_model")) == "rows of position shifted up by 2"


def test_what_is_swapped_or_permuted_along_an_axis():
    assert told(Q, Q[[0, 2, 1, 3]], HEADS) == "head 1 and 2 swapped"
    assert told(Q, Q[[2, 3, 0, 1]], HEADS) == "head permuted: 0 … 3 hold 2, 3, 0, 1"
    assert told(OUT, OUT[::-1], ("d_mlp", "d_model")) == "d_mlp permuted: in reverse"
    order = np.r_[1:96, 0]
    assert told(OUT, OUT[order], ("d_mlp", "d_model")) == "d_mlp permuted: all 96 stand elsewhere"
    mixed = stored(Q)[RANDOM.permutation(64)]
    assert told(Q, loaded(mixed), HEADS).startswith("(head d_head) permuted: ")


def test_slices_that_hold_others_which_stay_where_they_are():
    assert told(Q, Q[[0, 0, 2, 2]], HEADS) == "head 1 holds head 0, head 3 holds head 2"
    assert told(OUT, OUT[[0, 0, 0, 0, 0, *range(5, 96)]], ("d_mlp", "d_model")).endswith(", and 1 more are copies")
    large = RANDOM.normal(size=(5000, 8)).astype(np.float32)
    assert told(large, large[[*range(4999), 17]], ("vocab", "d_model")) == "vocab 4999 holds vocab 17"


def test_a_lost_slice_is_no_copy_of_one_that_is_small_beside_what_the_format_explains():
    lost = OUT.copy()
    lost[9] = 0
    assert list(copied(Pair("w", ("d_mlp", "d_model"), OUT, lost, {}))) == []


def test_what_only_stands_elsewhere_is_said_to():
    for found, reordered in (
        (Q[[1, 0, 2, 3]], True),
        (loaded(stored(Q)[::-1]), True),
        (Q[[0, 0, 2, 3]], False),
        (2 * Q, False),
    ):
        assert recognise(Pair("w", HEADS, Q, found, {}), LIMIT).reordered == reordered


def test_another_weight_of_the_model():
    other = RANDOM.normal(size=OUT.shape).astype(np.float32)
    assert told(OUT, other, ("d_mlp", "d_model"), others={"blocks.0.mlp.W_out": other}) == "holds blocks.0.mlp.W_out"


def test_zeros_constants_and_what_is_no_number():
    assert told(NORM, 0 * NORM, ("d_model",)) == "all zero"
    assert told(NORM, np.ones_like(NORM), ("d_model",)) == "all 1"
    assert told(NORM, np.where(np.arange(64) < 3, np.nan, NORM), ("d_model",)) == "3 numbers are NaN"
    both = OUT.copy()
    both[5, 7] = np.inf
    assert told(OUT, both, ("d_mlp", "d_model")) == "1 number is infinite: [5, 7]"
    both[6, 7] = np.nan
    assert told(OUT, both, ("d_mlp", "d_model")) == "2 numbers are NaN or infinite"


def test_one_number_and_one_slice():
    one, row = OUT.copy(), OUT.copy()
    one[5, 7] = -9
    row[:, 3] = 0.25
    assert told(OUT, one, ("d_mlp", "d_model")) == f"one number differs: [5, 7] is -9 instead of {OUT[5, 7]:.4g}"
    assert told(OUT, row, ("d_mlp", "d_model")) == "only d_model 3 differs"


def test_one_place_stands_out_of_what_the_format_explains():
    noise = 0.005 * RANDOM.normal(size=OUT.shape).astype(np.float32)
    limit = 1.5 * off(OUT + noise, OUT)
    one, row = OUT + noise, OUT + noise
    one[5, 7] = -OUT[5, 7] + 3
    row[9] = 0
    assert told(OUT, one, ("d_mlp", "d_model"), limit).startswith("one number differs: [5, 7]")
    assert told(OUT, row, ("d_mlp", "d_model"), limit) == "only d_mlp 9 differs"


def test_a_lost_row_is_not_taken_for_its_largest_number_where_the_format_explains_all_but_a_little():
    row = OUT + 0.09 * RANDOM.normal(size=OUT.shape).astype(np.float32)
    row[9] = 0
    assert told(OUT, row, ("d_mlp", "d_model"), 0.999 * off(row, OUT)) == "only d_mlp 9 differs"


@pytest.mark.parametrize("bits", [8, 6, 4, 3])
@pytest.mark.parametrize("block", [32, 64])
def test_even_levels_in_blocks(bits, block):
    matrix = RANDOM.normal(size=(48, 128)).astype(np.float32)
    blocks = matrix.reshape(-1, block)
    step = np.abs(blocks).max(1, keepdims=True) / (2 ** (bits - 1) - 1)
    coarse = (np.round(blocks / step) * step).reshape(matrix.shape).astype(np.float32)
    assert told(matrix, coarse, ("d_mlp", "d_model"), rows=(1,)) == f"rounded, as {bits} bits in blocks of {block} are"


def test_noise_of_the_same_size_is_not_taken_for_rounding():
    step = np.abs(OUT.reshape(-1, 32)).max() / 127
    noisy = (OUT + step / np.sqrt(12) * RANDOM.normal(size=OUT.shape)).astype(np.float32)
    assert told(OUT, noisy, ("d_mlp", "d_model")) == ""


def test_nothing_is_told_of_another_random_matrix():
    other = RANDOM.normal(size=OUT.shape).astype(np.float32)
    assert told(OUT, other, ("d_mlp", "d_model"), others={"blocks.0.mlp.W_out": TABLE}) == ""


def test_how_far_off_is_relative_and_infinite_where_nothing_can_be_said():
    assert off(np.array([3.0, 4.0]), np.array([3.0, 0.0])) == pytest.approx(4 / 3)
    assert off(np.zeros(2), np.zeros(2)) == 0
    assert off(np.ones(2), np.zeros(2)) == np.inf
    assert off(np.ones(3), np.ones(2)) == np.inf
    assert off(np.array([np.nan]), np.ones(1)) == np.inf
