"""What scores of zeros show, by hand-made masks."""

from __future__ import annotations

import numpy as np
import pytest

from llmtrace.dataflow.identify import FLOAT32, Unfit
from llmtrace.dataflow.identify.mask import FoundMask, find_mask

N = 40
AT = np.arange(N)
DISTANCE = AT[:, None] - AT


def masked(seen, heads=2):
    return np.where(seen, 0, -np.inf).astype(np.float32)[None].repeat(heads, 0)


@pytest.mark.parametrize("window", [1, 2, 39])
def test_a_window_counts_the_query_itself(window):
    found = find_mask(masked(np.tri(N, dtype=bool) & ~np.tri(N, k=-window, dtype=bool)), FLOAT32)
    assert isinstance(found, FoundMask), found
    assert found.window == window
    assert found.slopes == ()
    assert not found.constant.any()


def test_a_window_that_is_not_reached_is_none():
    assert find_mask(masked(DISTANCE >= 0), FLOAT32).window is None


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (np.ones((N, N), bool), "query 0 sees key 1"),
        (DISTANCE == 0, None),
        (DISTANCE > 0, "the 0 keys that query 0 sees"),
        ((DISTANCE >= 0) & (AT[:, None] // 16 == AT // 16), "keys that query 8 sees"),
        ((DISTANCE >= 0) & ((DISTANCE < 5) | (AT < 4)), "window of 9"),
        (np.zeros((N, N), bool), "the 0 keys"),
    ],
)
def test_what_is_no_window_is_refused_by_the_first_query_that_shows_it(seen, reason):
    found = find_mask(masked(seen), FLOAT32)
    if reason is None:
        assert found.window == 1
    else:
        assert isinstance(found, Unfit)
        assert reason in found.why


def test_heads_that_see_different_keys_are_refused():
    both = np.concatenate([masked(DISTANCE >= 0, 1), masked((DISTANCE >= 0) & (DISTANCE < 9), 1)])
    assert find_mask(both, FLOAT32) == Unfit("its heads see different keys")


def test_numbers_that_are_none_are_refused():
    bias = masked(DISTANCE >= 0)
    bias[1, 3, 2] = np.nan
    assert find_mask(bias, FLOAT32) == Unfit("scores of zeros are not numbers")
    assert isinstance(find_mask(bias[:, :-1], FLOAT32), Unfit)


def test_a_row_constant_without_a_slope_is_said():
    found = find_mask(masked(DISTANCE >= 0) + np.float32(0.5) * AT[:, None].astype(np.float32), FLOAT32)
    assert isinstance(found, FoundMask), found
    assert found.slopes == ()
    assert found.origin == "other"
    np.testing.assert_allclose(found.constant, 0.5 * AT[None] + np.zeros((2, N)))
