"""Frequencies that change with the length of the prompt: where, and how."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtrace.schema.rotary import frequencies, rotate
from llmtrace.spec import DynamicNtk, Linear, LongRope, Rotary
from llmtrace_onnxruntime.identify.lengths import find_rotary_by_length
from llmtrace_onnxruntime.identify.measured import Unfit

LONGEST = 700


def runs(rotary, seen=None):
    def run(length):
        if seen is not None:
            seen.append(length)
        q = np.random.default_rng(0).normal(size=(length, 2, 16)).astype(np.float16).astype(np.float32)
        return q, rotate(rotary, q, np.arange(length)).astype(np.float32)

    return run


@pytest.mark.parametrize(
    "rotary", [None, Rotary(1e4, 16), Rotary(5e5, 8, "interleaved"), Rotary(1e4, 16, scaling=Linear(4.0))]
)
def test_what_does_not_change_is_what_one_run_shows(rotary):
    assert find_rotary_by_length(runs(rotary), LONGEST) == rotary


@given(st.integers(64, LONGEST - 2), st.sampled_from([1e4, 1e6]))
@settings(max_examples=15, deadline=None)
def test_two_tables_change_at_their_edge(edge, theta):
    short, long = tuple(1 + 0.1 * i for i in range(8)), tuple(4.0 - 0.2 * i for i in range(8))
    rotary = Rotary(theta, 16, scaling=LongRope(short, long, edge, 1.25))
    seen: list[int] = []
    found = find_rotary_by_length(runs(rotary, seen), LONGEST)
    assert found.scaling.context == edge and found.scaling.gain == 1.25
    for length in (edge, edge + 1, LONGEST):
        angles = length * np.abs(frequencies(found, length) - frequencies(rotary, length))
        assert angles.max() < 1e-5  # a slow pair is known as well as it is seen to turn
    assert len(seen) < 16


@given(st.integers(64, 500), st.sampled_from([1.5, 2.0, 8.0]))
@settings(max_examples=15, deadline=None)
def test_a_base_that_grows_is_named_with_its_factor(edge, factor):
    rotary = Rotary(1e4, 16, scaling=DynamicNtk(factor, edge))
    assert find_rotary_by_length(runs(rotary), LONGEST) == rotary


def test_three_tables_are_none_that_is_known():
    def run(length):
        divisor = 1.0 if length <= 100 else 2.0 if length <= 300 else 4.0
        return runs(Rotary(1e4, 16, scaling=Linear(divisor)))(length)

    found = find_rotary_by_length(run, LONGEST)
    assert isinstance(found, Unfit) and "100 positions" in found.why
