"""How signals lie in values: what is put into a value is what is read of it, and nothing else of the value changes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtrace.dataflow.forms import AXES, HIDDEN, Biased, Choices, Heads, Part, Pattern, Rows, Scores, held_by, shown

TOKENS = 5


def numbered(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@st.composite
def lying(draw):
    """A form, and a value in which it is found."""
    tokens, heads, width, repeat = (draw(st.integers(1, most)) for most in (6, 4, 3, 3))
    kind = draw(st.sampled_from(["rows", "part", "part of heads", "heads", "pattern", "biased"]))
    ones = (1,) * draw(st.integers(0, 2))
    if kind == "rows":
        return tokens, Rows(), numbered(*ones, tokens, heads * width), (tokens, heads * width)
    if kind.startswith("part"):
        columns = np.array(draw(st.permutations(range(heads * width + 3))))[: heads * width]
        columns = columns.reshape(heads, width) if "heads" in kind else columns
        return tokens, Part(columns), numbered(*ones, tokens, heads * width + 3), (tokens, *columns.shape)
    if kind == "biased":  # whole numbers, which no sum rounds
        form = Biased(Part(np.arange(width)[::-1]), numbered(heads * width))
        return tokens, form, numbered(*ones, tokens, heads * width), (tokens, width)
    if kind == "pattern":
        return tokens, Pattern(heads), numbered(*ones, heads, tokens, tokens), (heads, tokens, tokens)
    order = tuple(draw(st.permutations(AXES)))
    sizes = {"token": tokens, "head": heads * repeat, "d_head": width}
    shape = (*ones, *(-1 if axis == "token" else sizes[axis] for axis in order))
    form = Heads(order, heads, width, repeat, shape)
    value = form.native(numbered(tokens, heads, width))
    return tokens, form, value, (tokens, heads, width)


@settings(deadline=None)
@given(lying())
def test_what_is_put_is_what_is_read(lying):
    tokens, form, value, shape = lying
    assert form.natural(value, tokens).shape == shape
    wanted = -1.0 - numbered(*shape)
    changed = value.copy()
    form.put(changed, wanted)
    assert np.array_equal(form.natural(changed, tokens), wanted)
    form.put(changed, form.natural(value, tokens))
    assert np.array_equal(changed, value), "and the rest is as it was"


def test_what_an_operator_adds_first_is_shown_and_taken_off_again():
    value, bias = numbered(1, 2, 3), np.array([10.0, 20.0, 30.0], np.float32)
    form = Biased(Rows(), bias)
    assert form.natural(value, 2).tolist() == [[10, 21, 32], [13, 24, 35]]
    assert np.array_equal(value, numbered(1, 2, 3))
    form.put(value, np.zeros((2, 3), np.float32))
    assert value.tolist() == [[[-10, -20, -30], [-10, -20, -30]]]
    marks = np.zeros((1, 2, 3), bool)
    form.put(marks, np.array([[True, False, False], [False, False, True]]))
    assert marks.tolist() == [[[True, False, False], [False, False, True]]]
    assert form.natural(marks, 2).tolist() == [[True, False, False], [False, False, True]]


@settings(deadline=None)
@given(st.permutations(AXES), st.integers(1, 3))
def test_heads_lie_in_memory_as_their_axes_say(order, repeat):
    form = Heads(tuple(order), 2, 3, repeat, (1, -1, 2 * repeat * 3))
    natural = numbered(TOKENS, 2, 3)
    native = form.native(natural).reshape([{"token": TOKENS, "head": 2 * repeat, "d_head": 3}[axis] for axis in order])
    for token, head, channel in itertools.product(range(TOKENS), range(2 * repeat), range(3)):
        at = {"token": token, "head": head, "d_head": channel}
        assert native[tuple(at[axis] for axis in order)] == natural[token, head // repeat, channel]


def test_a_copy_of_a_head_is_written_with_it():
    form = Heads(AXES, 2, 1, 2)
    value = np.zeros((1, TOKENS, 4), np.float32)
    form.put(value, np.tile([[[1.0], [2.0]]], (TOKENS, 1, 1)))
    assert value[0].tolist() == [[1, 1, 2, 2]] * TOKENS


def test_masked_scores_are_minus_infinity_and_others_as_they_were():
    value = np.array([[[[0.5, -3.4e38], [-1e4, -4999.0]]]], np.float32)
    found = Scores(1).natural(value, 2)
    assert found.tolist() == [[[0.5, -np.inf], [-np.inf, -4999.0]]]
    assert found.dtype == np.float32
    assert HIDDEN > -6e4, "the least number of half precision is a mask's too"
    half = Scores(1).natural(np.array([[0.5, -65504]] * 2, np.float16).reshape(1, 2, 2), 2)
    assert half.dtype == np.float16
    assert np.isneginf(half[0, :, 1]).all()


LAYOUTS = {
    "token": lambda rows: rows.reshape(-1, rows.shape[-1]),
    "choice": lambda rows: rows.swapaxes(0, 1).reshape(-1, rows.shape[-1]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("plain", [False, True])
def test_rows_of_chosen_experts_are_read_and_put(layout, plain):
    rows = numbered(TOKENS, 2, 1 if plain else 4)
    form = Choices(layout, None if plain else np.array([3, 1]), plain=plain)
    value = LAYOUTS[layout](rows).copy()
    found = form.natural(value, TOKENS).copy()
    assert np.array_equal(found, rows[..., 0] if plain else rows[..., [3, 1]])
    form.put(value, -found)
    assert np.array_equal(form.natural(value, TOKENS), -found)
    assert plain or np.array_equal(LAYOUTS[layout](rows)[:, [0, 2]], value[:, [0, 2]])


def test_experts_that_all_compute_are_picked_best_first():
    random = np.random.default_rng(0)
    every = random.normal(size=(4, TOKENS, 3)).astype(np.float32)
    index = np.stack([random.permutation(4)[:2] for _ in range(TOKENS)])
    best = random.normal(size=(TOKENS, 2)).astype(np.float32)
    form = Choices("expert", beside=("index", "best"))
    found = shown(form, "value", {"value": every, "index": index, "best": best}, TOKENS)
    for token in range(TOKENS):
        first, second = index[token][np.argsort(-best[token])]
        assert np.array_equal(found[token], [every[first, token], every[second, token]])
    assert held_by(("value", form)) == ("value", "index", "best")
    assert held_by(("value", Rows())) == ("value",)


def test_of_two_that_rank_alike_the_lower_number_comes_first():
    index, best = np.array([[3, 1]]), np.array([[0.5, 0.5]], np.float32)
    value = np.array([[30.0], [10.0]], np.float32)
    assert Choices("token", beside=("i", "b"), plain=True).natural(value, 1, index, best).tolist() == [[10, 30]]
