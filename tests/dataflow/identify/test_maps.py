"""Re-arrangements, by numpy's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtrace.dataflow.identify import FLOAT16, IndexMap, Unfit, find_map

N, C = 7, 24


@given(st.permutations(range(N * C)), st.integers(1, N * C))
def test_any_gathering_of_elements_is_found(order, count):
    found = find_map(lambda x: x.ravel()[order[:count]], N, C)
    assert isinstance(found, IndexMap)
    np.testing.assert_array_equal(found.token * C + found.column, order[:count])


def test_it_holds_for_any_numbers_afterwards():
    def piece(x):
        return np.repeat(x.reshape(1, -1, 2, 3, 4)[:, :, :, 1].transpose(0, 2, 3, 1), 3, 1)

    found = find_map(piece, N, C)
    x = np.random.default_rng(1).normal(size=(N, C))
    np.testing.assert_array_equal(x[found.token, found.column], piece(x))


@pytest.mark.parametrize(("tokens", "columns"), [(4100, 3), (3, 4100)])
def test_float16_counts_further_than_it_can(tokens, columns):
    found = find_map(lambda x: x.astype(np.float16)[::-1, ::-1], tokens, columns, unit=FLOAT16)
    np.testing.assert_array_equal(found.token[:, 0], np.arange(tokens)[::-1])
    np.testing.assert_array_equal(found.column[0], np.arange(columns)[::-1])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x[:, :8] + x[:, 8:16],
        lambda x: x[:, ::-1] + x[:1],
        lambda x: x + 0.5,
        lambda x: -x,
        lambda x: 2 * x,
        lambda x: np.concatenate([x, 0 * x[:, :4]], 1),
        np.abs,
        lambda x: np.maximum(x, 0),
        lambda x: np.sort(x, 1),
        lambda x: x[np.argsort(x[:, 0])],
        lambda x: (x[:, ::-1] + x) / 2,
        lambda x: x * np.nan,
        lambda x: x[: 1 + int(x[0, 1])],
    ],
)
def test_what_does_more_than_re_arrange_is_refused(wrong):
    assert isinstance(find_map(wrong, N, C), Unfit)
