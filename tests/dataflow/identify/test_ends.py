"""Factors, biases and tables of positions."""

from __future__ import annotations

import numpy as np
import pytest

from llmtrace.dataflow.identify import Affine, Unfit, find_affine, find_factor, find_offset
from tests.dataflow.identify.pieces import UNITS, of, torch

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("factor", [1.0, -0.3, 12.0, 0.22, 1e-3])
def test_a_factor_is_found(factor):
    assert find_factor(of(lambda x: factor * x), 9) == factor


def test_gemmas_root_is_a_factor_as_it_is():
    assert find_factor(of(lambda x: x * 576**0.5), 9, exact=[576**0.5]) == 24.0
    assert find_factor(of(lambda x: x * 640**0.5), 9, exact=[640**0.5]) == 640**0.5


def test_a_cap_is_no_factor():
    found = find_factor(of(lambda x: 30 * torch.tanh(x / 30)), 9)
    assert found == Unfit("it caps at 30")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_bias_is_what_zeros_become(dtype):
    bias = torch.randn(9, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = find_affine(of(lambda x: 0.22 * x + bias, dtype), 9, unit=UNITS[dtype])
    assert isinstance(found, Affine), found
    assert found.factor == 0.22
    np.testing.assert_allclose(0.22 * found.bias, bias.float(), rtol=UNITS[dtype], atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_each_channel_may_have_its_own_factor_and_bias(dtype):
    factor, bias = (torch.randn(9, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in (0, 1))
    found = find_affine(of(lambda x: factor * (x + bias), dtype), 9, unit=UNITS[dtype])
    assert isinstance(found, Affine), found
    np.testing.assert_allclose(found.factor, factor.float(), rtol=4 * UNITS[dtype])
    np.testing.assert_allclose(found.bias, bias.float(), rtol=8 * UNITS[dtype])


def test_a_bias_of_what_is_multiplied_by_nought_is_none_that_is_known():
    assert isinstance(find_affine(of(lambda x: 0 * x + 1), 9), Unfit)


def test_no_bias_is_none():
    assert find_affine(of(torch.clone), 9).bias is None
    assert find_affine(of(torch.clone), 9).factor == 1.0


@pytest.mark.parametrize(
    "wrong",
    [torch.square, torch.tanh, lambda x: x.roll(1, -1), lambda x: x[:, 1:], lambda x: x * x.mean(-1, keepdim=True)],
)
def test_what_is_not_affine_is_refused(wrong):
    assert isinstance(find_affine(of(wrong), 9), Unfit)


@pytest.mark.parametrize("offset", [0, 2, 5])
def test_a_table_starts_at_its_offset(offset):
    table = RNG.normal(size=(16, 4)).astype(np.float32)
    assert find_offset(table, table[offset : offset + 7]) == offset


def test_rows_that_do_not_follow_each_other_are_refused():
    table = RNG.normal(size=(16, 4))
    assert isinstance(find_offset(table, table[5:1:-1]), Unfit)
    assert isinstance(find_offset(table, table[2:6] * 1.001), Unfit)
    assert isinstance(find_offset(table, table[2:6, :3]), Unfit)
    assert isinstance(find_offset(table[:3], table[:4]), Unfit)


def test_a_table_that_repeats_itself_leaves_its_start_open():
    table = np.tile(RNG.normal(size=(4, 4)), (4, 1))
    found = find_offset(table, table[1:6])
    assert isinstance(found, Unfit)
    assert "rows 1 and 5" in found.why
