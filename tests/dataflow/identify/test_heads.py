"""Heads in arrays of every layout that exporters write."""

from __future__ import annotations

import numpy as np
import pytest

from llmtrace.dataflow.identify import HeadMap, Unfit, find_heads, find_map, shared

N, H, D = 7, 6, 4
COLUMNS = np.arange(H * D).reshape(H, D)
LAYOUTS = {
    "heads first": (lambda x: x.reshape(1, N, H, D).transpose(0, 2, 1, 3), ("head", "token", "d_head")),
    "tokens first": (lambda x: x.reshape(N, H, D), ("token", "head", "d_head")),
    "for the product": (lambda x: x.reshape(N, H, D).transpose(1, 2, 0), ("head", "d_head", "token")),
    "flat": (lambda x: x, ("token", "head", "d_head")),
    "heads in rows": (lambda x: x.reshape(N * H, D), ("token", "head", "d_head")),
    "heads of tokens in rows": (
        lambda x: x.reshape(N, H, D).swapaxes(0, 1).reshape(H * N, D),
        ("head", "token", "d_head"),
    ),
    "channels before heads": (lambda x: x.reshape(N, H, D).swapaxes(1, 2), ("token", "d_head", "head")),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_found_and_undone(name):
    piece, order = LAYOUTS[name]
    found = find_heads(find_map(piece, N, H * D), N, D)
    assert isinstance(found, HeadMap), found
    assert found.order == order
    np.testing.assert_array_equal(found.columns, COLUMNS)
    x = np.random.default_rng(0).normal(size=(N, H * D))
    np.testing.assert_array_equal(found.heads(piece(x)), x.reshape(N, H, D))


def test_packed_projections_show_their_columns():
    interleaved = find_heads(find_map(lambda x: x.reshape(N, H, 3, D)[:, :, 1], N, 3 * H * D), N, D)
    np.testing.assert_array_equal(interleaved.columns, np.arange(3 * H * D).reshape(H, 3, D)[:, 1])
    behind = find_heads(find_map(lambda x: x[:, H * D : 2 * H * D], N, 3 * H * D), N, D)
    np.testing.assert_array_equal(behind.columns, COLUMNS + H * D)


@pytest.mark.parametrize(
    "wrong", [lambda x: x[::-1], lambda x: x[:, :-1], lambda x: x[1:], lambda x: np.concatenate([x[:3], x[3:, ::-1]])]
)
def test_what_does_not_hold_every_token_alike_is_refused(wrong):
    assert isinstance(find_heads(find_map(wrong, N, H * D), N, D), Unfit)


def test_copies_side_by_side_are_grouped_and_copies_in_turn_are_not():
    two = COLUMNS[:2]
    grouped, tiled = shared(np.repeat(two, 3, 0)), shared(np.tile(two, (3, 1)))
    assert grouped.reads == (0, 0, 0, 1, 1, 1)
    assert grouped.grouped
    assert tiled.reads == (0, 1, 0, 1, 0, 1)
    assert not tiled.grouped
    for each in (grouped, tiled):
        np.testing.assert_array_equal(each.columns, two)


def test_heads_without_copies_read_themselves():
    assert shared(COLUMNS).reads == tuple(range(H))
    assert shared(COLUMNS).grouped


def test_heads_that_overlap_are_refused():
    assert isinstance(shared(np.array([[0, 1], [1, 2]])), Unfit)
