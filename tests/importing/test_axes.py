"""How an array is laid out is said in words, and nothing is guessed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtrace.errors import DumpError
from llmtrace.importing.axes import MisfitError, arranged, assumed, check, parse, with_mask
from tests.specs import SPECS, equations

STEPS = equations(SPECS["sequential"]).steps
Z = STEPS["blocks.0.attn.z"]
"""[token=5 head=4 d_value=6]"""
VALUE = np.arange(5 * 4 * 6).reshape(5, 4, 6)


@pytest.mark.parametrize(
    ("written", "array"),
    [
        ("token head d_value", VALUE),
        ("head token d_value", VALUE.transpose(1, 0, 2)),
        ("d_value head token", VALUE.T),
        ("token (head d_value)", VALUE.reshape(5, 24)),
        ("(d_value head) token", VALUE.transpose(2, 1, 0).reshape(24, 5)),
        ("(token head d_value)", VALUE.ravel()),
        ("1 token 1 head d_value", VALUE[None, :, None]),
        ("token (1 head) d_value", VALUE),
        ("batch token head d_value", VALUE[None]),
        ("token batch head d_value", VALUE[:, None]),
        (" token  ( head d_value ) ", VALUE.reshape(5, 24)),
    ],
)
def test_every_layout_of_one_value_is_that_value(written, array):
    layout = parse(written)
    check(layout, Z)
    assert (arranged(array, layout, Z, 5, None) == VALUE).all()


@settings(deadline=None)
@given(st.permutations(range(3)), st.sampled_from([[1, 1, 1], [2, 1], [1, 2], [3]]), st.integers(0, 3))
def test_any_order_and_any_grouping_is_undone(order, grouping, batch):
    names = [Z.axes[axis] for axis in order]
    starts = [sum(grouping[:place]) for place in range(len(grouping))]
    groups = [names[start : start + size] for start, size in zip(starts, grouping, strict=True)]
    array = np.full((4, *(VALUE.shape[axis] for axis in order)), -1)
    array[batch] = VALUE.transpose(order)
    shape = [math.prod(VALUE.shape[Z.axes.index(name)] for name in group) for group in groups]
    text = "batch " + " ".join(f"({' '.join(group)})" for group in groups)
    assert (arranged(array.reshape(4, *shape), parse(text), Z, 5, batch) == VALUE).all()


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("token (head d_value", "not closed"),
        ("token head) d_value", "a bracket too many"),
        ("token ((head) d_value)", "a bracket too many"),
        ("token () head d_value", "nothing in it"),
        ("(batch token) head d_value", "no axis of its own"),
        ("batch batch token head d_value", "no axis of its own"),
        ("token head", r"not those of blocks\.0\.attn\.z, which has token head d_value"),
        ("token head head d_value", "each once"),
        ("token head d_head", "not those of"),
        ("", "not those of"),
    ],
)
def test_a_layout_that_is_none_is_refused(written, words):
    with pytest.raises(DumpError, match=words):
        check(parse(written), Z)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (VALUE[:4], r"has shape \[4, 4, 6\] where blocks\.0\.attn\.z is \[token=5 head=4 d_value=6\]"),
        (VALUE.reshape(5, 24), r"has shape \[5, 24\]"),
        (VALUE[None, None], r"has shape \[1, 1, 5, 4, 6\] where blocks\.0\.attn\.z is \[token=5 head=4 d_value=6\]"),
        (VALUE[None, :4], r"has shape \[1, 4, 4, 6\] where blocks\.0\.attn\.z is \[batch token=5 head=4 d_value=6\]"),
        (np.stack([VALUE, VALUE]), r"holds 2 sequences: choose one \(sequence=, --sequence\)"),
        (np.zeros((0, 5, 4, 6)), "holds 0 sequences"),
    ],
)
def test_an_array_that_does_not_fit_says_what_was_expected(array, words):
    with pytest.raises(MisfitError, match=words):
        arranged(array, assumed(Z, array), Z, 5, None)


@pytest.mark.parametrize("number", [-1, 2])
def test_a_sequence_that_is_not_there_is_refused(number):
    with pytest.raises(MisfitError, match="none of them is number"):
        arranged(np.stack([VALUE, VALUE]), assumed(Z, VALUE[None]), Z, 5, number)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_least_number_of_a_type_hides_a_key_and_is_a_number_elsewhere(dtype):
    least = np.array([[1, np.finfo(dtype).min], [np.finfo(dtype).max, 0]], dtype)
    hidden = with_mask(least, STEPS["blocks.0.attn.scores"])
    np.testing.assert_array_equal(hidden, np.array([[1, -np.inf], [np.finfo(dtype).max, 0]], dtype))
    assert hidden.dtype == dtype
    assert with_mask(least, Z) is least
    assert with_mask(hidden, STEPS["blocks.0.attn.scores"]) is hidden


def test_an_axis_of_length_one_of_the_site_may_be_left_away():
    step = STEPS["blocks.0.ln1.scale"]
    assert step.axes == ("token", "1")
    assert arranged(np.arange(5), parse("token"), step, 5, None).tolist() == [[0], [1], [2], [3], [4]]
