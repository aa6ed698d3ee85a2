"""One number is found over decades, to more digits than rounding leaves."""

from __future__ import annotations

import pytest

from llmtrace.comparison.hypotheses.fitting import fitted


@pytest.mark.parametrize("value", [3e-3, 0.5, 1.0, 7.25, 123.0, 999.0])
def test_the_value_of_least_error(value):
    assert fitted(lambda x: abs(x - value), 1.0) == pytest.approx(value, rel=1e-8)
    assert fitted(lambda x: (x - value) ** 2 / value**2, 1.0) == pytest.approx(value, rel=1e-6)


def test_one_that_is_out_of_reach_is_not_found():
    assert fitted(lambda x: abs(x - 1e7), 1.0, decades=4) == pytest.approx(100 * 10**0.1, rel=0.3)
