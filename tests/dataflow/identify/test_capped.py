"""Factors and caps against torch's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtrace.dataflow.identify import Capped, Unfit, find_cap
from tests.dataflow.identify.pieces import UNITS, of, torch

DECIMALS = st.integers(1, 999).map(lambda digits: digits / 100)


@settings(max_examples=30, deadline=None)
@given(DECIMALS, st.integers(2, 200) | st.none())
def test_scale_and_cap_are_found_as_they_were_written(scale, cap):
    def piece(x):
        return scale * x if cap is None else cap * torch.tanh(scale * x / cap)

    assert find_cap(of(piece), 48) == Capped(scale, cap)


def test_a_cap_that_hardly_bends_is_found():
    assert find_cap(of(lambda x: 1000 * torch.tanh(0.0078125 * x / 1000)), 48) == Capped(0.0078125, 1000.0)


@pytest.mark.parametrize("d_head", [12, 40, 48, 80, 96, 112, 192])
def test_a_root_that_was_taken_in_two_steps_is_found(d_head):
    root = torch.tensor(d_head**-0.25)
    assert find_cap(of(lambda x: x * root * root), 8, exact=[d_head**-0.5]) == Capped(d_head**-0.5, None)


@pytest.mark.parametrize(("scale", "cap"), [(1.0, None), (0.0625, 30.0), (0.22, 50.0), (1.0, 1000.0)])
def test_float16_is_enough(scale, cap):
    def piece(x):
        return scale * x if cap is None else cap * torch.tanh(scale * x / cap)

    assert find_cap(of(piece, torch.float16), 48, unit=UNITS[torch.float16]) == Capped(scale, cap)


def test_a_root_is_taken_as_it_is_where_it_was_expected():
    scale = 96**-0.5
    assert find_cap(of(lambda x: x * scale), 8, exact=[96**-0.5, 64**-0.5]).scale == scale
    assert np.float32(find_cap(of(lambda x: x * scale), 8).scale) == np.float32(scale)
    graph = float(np.float32(scale))
    assert np.float32(find_cap(of(lambda x: x * scale), 8, candidates=[graph]).scale) == np.float32(scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x.clamp(-50, 50),
        lambda x: 50 * torch.sin(x / 50),
        lambda x: 3 * x + 1e-3,
        lambda x: x * torch.linspace(1, 2, x.shape[-1], dtype=x.dtype),
        lambda x: 30 * torch.erf(x / 30),
        torch.zeros_like,
        torch.abs,
        lambda x: x.roll(1, 0),
        lambda x: x[:, :-1],
        lambda x: x / 0,
    ],
)
def test_what_is_neither_is_refused(wrong, dtype):
    assert isinstance(find_cap(of(wrong, dtype), 7, unit=UNITS[dtype]), Unfit)


def test_a_noisy_factor_is_not_called_a_huge_cap():
    assert isinstance(find_cap(of(lambda x: 3 * x * (1 + 1.3e-6 * torch.sin(1000 * x))), 48), Unfit)
