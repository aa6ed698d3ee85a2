"""From measured numbers to those that were meant."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llmtrace.dataflow.identify.decimals import decimal, settle, shortest


@given(st.integers(1, 99999), st.integers(-12, 6))
def test_a_short_decimal_is_found_again_from_its_float32(digits, exponent):
    meant = float(f"{digits}e{exponent}")
    assert decimal(float(np.float32(meant))) == meant
    assert settle(float(np.float32(meant)), meant * 2.0**-23) == meant


@given(st.floats(1e-9, 1e9), st.floats(1e-7, 1e-2))
def test_the_shortest_decimal_lies_between_and_none_is_shorter(middle, error):
    low, high = middle * (1 - error), middle * (1 + error)
    found = shortest(low, high)
    assert low <= found <= high
    assert shortest(-high, -low) == -found
    digits = len(f"{found:.15e}".partition("e")[0].replace(".", "").rstrip("0"))
    if digits > 1:  # multiples of the next coarser power of ten: none lies between
        step = 10.0 ** (np.floor(np.log10(found)) - digits + 2)
        assert np.floor(high / step * (1 - 1e-12)) == np.floor(low / step * (1 + 1e-12)) or digits > 14


def test_what_is_likely_comes_before_what_is_short():
    near = 1.000000012e-5
    assert settle(near, 1e-10) == 1e-5
    assert settle(near, 1e-10, [1.0000001e-5]) == 1.0000001e-5
    assert settle(near, 1e-10, [float(np.float32(1.0000001e-5))]) == 1.0000001e-5
    assert settle(near, 1e-10, [2e-5]) == 1e-5
    assert settle(0.10206207, 1e-9, trust=1e-7, exact=[96**-0.5]) == 96**-0.5


def test_what_lies_outside_the_error_is_never_taken():
    assert settle(0.1235, 1e-6, [0.12]) == 0.1235
    assert settle(0.5, 0.01, [0.495, 0.499]) == 0.499
