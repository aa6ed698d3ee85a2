"""Rotary against transformers' tables and rotations, and against turnings that are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")

from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as turn_neighbours
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from llmtrace.dataflow.identify import Unfit, find_rotary
from llmtrace.schema.rotary import by_length, frequencies, gain
from llmtrace.spec import Linear, LongRope, Rotary
from tests.dataflow.identify.pieces import UNITS, torch

RNG = np.random.default_rng(0)
HEADS = 3


def drawn(length, d_head):
    return torch.from_numpy(RNG.normal(size=(length, HEADS, d_head)).astype(np.float32))


def llama(length, d_head, theta, kind=None, context=2048, start=0, dtype=torch.float32):
    """q and rot of transformers' Llama."""
    config = LlamaConfig(
        hidden_size=HEADS * d_head, num_attention_heads=HEADS, max_position_embeddings=context,
        rope_parameters={"rope_type": "default", "rope_theta": theta, **(kind or {})},
    )  # fmt: skip
    q = drawn(length, d_head).to(dtype)
    cos, sin = LlamaRotaryEmbedding(config)(q[None], torch.arange(start, start + length)[None])
    rot = apply_rotary_pos_emb(q.transpose(0, 1)[None], q.transpose(0, 1)[None], cos, sin)[0][0].transpose(0, 1)
    return q.float().numpy(), rot.float().numpy(), config


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 9), st.integers(2, 7), st.sampled_from([8, 64, 128]), st.sampled_from([64, 300, 1024])
)  # fmt: skip
def test_llamas_rotary_is_found_with_its_base(digit, exponent, d_head, length):
    theta = float(f"{digit}e{exponent}")
    q, rot, _ = llama(length, d_head, theta)
    assert find_rotary(q, rot) == Rotary(theta, d_head)


def test_four_thousand_positions_tell_a_base_of_six_digits():
    q, rot, _ = llama(4096, 64, 1234560.0)
    assert find_rotary(q, rot) == Rotary(1234560.0, 64)


def test_float16_tells_usual_bases():
    for theta, length in ((1e4, 256), (5e5, 256), (1e6, 256), (1e4, 4096)):
        q, rot, _ = llama(length, 64, theta, dtype=torch.float16)
        assert find_rotary(q, rot, unit=UNITS[torch.float16]) == Rotary(theta, 64)


@pytest.mark.parametrize(("d_head", "width"), [(16, 8), (64, 16), (80, 32)])
def test_some_leading_channels_turn(d_head, width):
    q = drawn(100, d_head).numpy()
    turned = llama(100, width, 1e4)
    rot = np.concatenate([turned[1], q[..., width:]], -1)
    assert find_rotary(np.concatenate([turned[0], q[..., width:]], -1), rot) == Rotary(1e4, width)


@pytest.mark.parametrize("width", [8, 32])
def test_neighbours_turn_as_in_gptj(width):
    angle = torch.arange(200)[:, None] / 1e4 ** (torch.arange(0, width, 2) / width)
    q = drawn(200, 32)
    head = turn_neighbours(q[None, ..., :width], angle.sin()[None], angle.cos()[None])[0]
    rot = torch.cat([head, q[..., width:]], -1)
    assert find_rotary(q.numpy(), rot.numpy()) == Rotary(1e4, width, "interleaved")


def test_interpolated_positions_are_a_factor():
    q, rot, _ = llama(500, 64, 1e4, {"rope_type": "linear", "factor": 4.0})
    assert find_rotary(q, rot) == Rotary(1e4, 64, scaling=Linear(4.0))


SCALED = {
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
    "yarn, gain": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "attention_factor": 1.25,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SCALED)
def test_scaled_frequencies_are_divisors_that_say_the_same(name):
    q, rot, config = llama(1024, 64, 5e5, SCALED[name])
    found = find_rotary(q, rot)
    assert isinstance(found, Rotary), found
    assert isinstance(found.scaling, LongRope)
    assert found.theta == 5e5
    assert found.scaling.short == found.scaling.long
    assert not by_length(found)
    expected, factor = ROPE_INIT_FUNCTIONS[SCALED[name]["rope_type"]](config, "cpu")
    for length in (10, 10000):
        np.testing.assert_allclose(frequencies(found, length), expected.double(), rtol=1e-6)
    assert gain(found) == pytest.approx(factor, rel=1e-6)
    if name == "yarn, gain":
        assert gain(found) == 1.25


LONGROPE = {
    "rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 64,
    "short_factor": [1.0 + 0.1 * i for i in range(8)], "long_factor": [2.0 + 0.3 * i for i in range(8)],
}  # fmt: skip


def test_two_lengths_show_two_tables():
    short, long = (llama(length, 16, 1e4, LONGROPE, 256) for length in (64, 200))
    found = find_rotary(*short[:2], longer=long[:2], candidates=[1e4])
    assert isinstance(found, Rotary), found
    assert found.scaling.context == 64
    assert by_length(found)
    plain = 1e4 ** -(np.arange(8) / 8)
    np.testing.assert_allclose(frequencies(found, 64), plain / LONGROPE["short_factor"], rtol=1e-5)
    np.testing.assert_allclose(frequencies(found, 65), plain / LONGROPE["long_factor"], rtol=1e-5)
    assert gain(found) == pytest.approx(np.sqrt(1 + np.log(4) / np.log(64)), rel=1e-6)
    found = find_rotary(*short[:2], longer=long[:2], context=100)
    assert found.scaling.context == 100
    assert "not at 300" in find_rotary(*short[:2], longer=long[:2], context=300).why


def test_two_lengths_with_one_table_show_one():
    short, long = (llama(length, 16, 1e4) for length in (64, 200))
    assert find_rotary(*short[:2], longer=long[:2]) == Rotary(1e4, 16)


def test_pairs_that_hardly_turned_are_not_guessed():
    q, rot, _ = llama(16, 64, 5e5, SCALED["llama3"] | {"original_max_position_embeddings": 8192})
    found = find_rotary(q, rot)
    assert isinstance(found, Unfit)
    assert "16 positions" in found.why


def test_what_does_not_turn_has_no_rotary():
    q = drawn(64, 16).numpy()
    assert find_rotary(q, q.copy()) is None


def test_positions_that_start_at_one_are_refused():
    q, rot, _ = llama(64, 16, 1e4, start=1)
    assert find_rotary(q, rot) == Unfit("position 0 is turned")


def test_pairs_may_turn_from_the_second_channel_to_the_first():
    q, rot, _ = llama(64, 16, 1e4)
    assert find_rotary(rot, q) == Rotary(1e4, 16, backwards=True)


def normed(q, rot):
    return rot / np.linalg.norm(rot, axis=-1, keepdims=True)


def head_by_head(q, rot):
    return np.concatenate([rot[:, :1], q[:, 1:]], 1)


def added(q, rot):
    return q + np.sin(np.arange(len(q)))[:, None, None].astype(np.float32)


def permuted(q, rot):
    return rot[..., ::-1]


def quadratic(q, rot):
    at = np.arange(len(q)) ** 2 / 64
    a, b = q[..., :8], q[..., 8:]
    cos, sin = np.cos(at)[:, None, None], np.sin(at)[:, None, None]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


@pytest.mark.parametrize("wrong", [normed, head_by_head, added, permuted, quadratic, lambda q, rot: rot[1:]])
def test_what_is_no_rotation_is_refused(wrong):
    q, rot, _ = llama(64, 16, 1e4)
    assert isinstance(find_rotary(q, wrong(q, rot)), Unfit)


def test_trailing_channels_that_change_are_refused():
    q, rot, _ = llama(64, 16, 1e4)
    assert isinstance(find_rotary(np.concatenate([q, q], -1), np.concatenate([rot, 1.01 * q], -1)), Unfit)
