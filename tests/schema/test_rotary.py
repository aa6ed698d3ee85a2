"""Rotary embedding against transformers: the turning, and how every kind of scaling changes frequencies."""

import numpy as np
import pytest
from attrs import evolve

from llmtrace.schema.rotary import frequencies, gain, rotate
from llmtrace.spec import DynamicNtk, Linear, Llama3, LongRope, Rotary, Yarn

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
HEAD = 16
LONG = tuple(1 + 0.5 * i for i in range(HEAD // 2))
SHORT = tuple(1 + 0.1 * i for i in range(HEAD // 2))
RNG = np.random.default_rng(0)


def config(parameters, theta=10000.0, context=64):
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=4 * HEAD,
        num_attention_heads=4,
        max_position_embeddings=context,
        rope_parameters={"rope_theta": theta, **parameters},
    )


KINDS = {
    "linear": (Linear(4.0), {"rope_type": "linear", "factor": 4.0}),
    "yarn": (
        Yarn(4.0, 64),
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    ),
    "yarn, not truncated, with a factor of its own": (
        Yarn(8.0, 64, 16.0, 2.0, truncate=False, gain=1.3),
        {
            "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "beta_fast": 16.0, "beta_slow": 2.0,
            "truncate": False, "attention_factor": 1.3,
        },
    ),
    "llama3": (
        Llama3(8.0, 1.0, 4.0, 64),
        {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
}  # fmt: skip


def theirs(parameters, length=None, theta=10000.0, context=64):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    found, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](
        config(parameters, theta, context), "cpu", seq_len=length
    )
    return found.double().numpy(), factor


@pytest.mark.parametrize("theta", [10000.0, 500000.0])
@pytest.mark.parametrize("name", KINDS)
def test_scaled_frequencies_are_transformers(name, theta):
    scaling, parameters = KINDS[name]
    rotary = Rotary(theta, HEAD, scaling=scaling)
    expected, factor = theirs(parameters, theta=theta)
    np.testing.assert_allclose(frequencies(rotary, 10), expected, rtol=1e-6)
    assert gain(rotary) == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("length", [10, 64, 65, 200])
def test_a_dynamic_base_grows_with_the_prompt_beyond_its_context(length):
    rotary = Rotary(10000.0, HEAD, scaling=DynamicNtk(2.0, 64))
    expected, factor = theirs({"rope_type": "dynamic", "factor": 2.0}, length)
    np.testing.assert_allclose(frequencies(rotary, length), expected, rtol=1e-6)
    assert gain(rotary) == factor == 1.0
    plain = frequencies(Rotary(10000.0, HEAD), length)
    assert np.allclose(frequencies(rotary, length), plain) == (length <= 64)


@pytest.mark.parametrize("length", [10, 64, 65])
def test_longrope_changes_its_factors_beyond_its_context(length):
    parameters = {
        "rope_type": "longrope", "short_factor": list(SHORT), "long_factor": list(LONG), "original_max_position_embeddings": 64,
        "factor": 4.0,
    }  # fmt: skip
    expected, factor = theirs(parameters, length, context=256)
    rotary = Rotary(10000.0, HEAD, scaling=LongRope(SHORT, LONG, 64, factor))
    np.testing.assert_allclose(frequencies(rotary, length), expected, rtol=1e-6)
    assert gain(rotary) == pytest.approx(np.sqrt(1 + np.log(4) / np.log(64)), rel=1e-12)


def test_the_gain_of_yarn_is_equation_22():
    assert gain(Rotary(1e4, HEAD, scaling=Yarn(4.0, 64))) == pytest.approx(0.1 * np.log(4) + 1, rel=1e-15)
    assert gain(Rotary(1e4, HEAD, scaling=Yarn(0.5, 64))) == 1.0
    assert gain(Rotary(1e4, HEAD, scaling=Yarn(4.0, 64, gain=1.0))) == 1.0


def test_halves_are_turned_as_in_llama():
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    x, positions = RNG.normal(size=(9, 3, HEAD)), np.arange(9)
    angles = np.concatenate([positions[:, None] * frequencies(Rotary(100.0, HEAD), 9)] * 2, -1)
    cos, sin = (torch.from_numpy(f(angles))[None] for f in (np.cos, np.sin))
    q = torch.from_numpy(x.transpose(1, 0, 2).copy())[None]
    expected = apply_rotary_pos_emb(q, q, cos, sin)[0][0].numpy().transpose(1, 0, 2)
    np.testing.assert_allclose(rotate(Rotary(100.0, HEAD), x, positions), expected, rtol=1e-12, atol=1e-14)


def test_neighbours_are_turned_as_in_gptj():
    from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb, create_sinusoidal_positions

    x, positions = RNG.normal(size=(9, 3, HEAD)), np.arange(9)
    table = create_sinusoidal_positions(9, HEAD).double()
    sin, cos = table[None, :, : HEAD // 2], table[None, :, HEAD // 2 :]
    expected = apply_rotary_pos_emb(torch.from_numpy(x)[None], sin, cos)[0].numpy()
    found = rotate(Rotary(10000.0, HEAD, "interleaved"), x, positions)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)  # their table is float32


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_channels_beyond_the_width_are_left_alone(layout):
    x = RNG.normal(size=(9, 3, HEAD))
    found = rotate(Rotary(100.0, 6, layout), x, np.arange(9))
    np.testing.assert_array_equal(found[..., 6:], x[..., 6:])
    np.testing.assert_array_equal(found[0], x[0])
    assert not np.allclose(found[1, :, :6], x[1, :, :6])


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_turning_backwards_undoes_turning(layout):
    x, forwards = np.random.default_rng(0).normal(size=(9, 2, 8)), Rotary(100.0, 6, layout)
    found = rotate(evolve(forwards, backwards=True), rotate(forwards, x, np.arange(9)), np.arange(9))
    np.testing.assert_allclose(found, x, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_the_channels_that_are_turned_may_begin_anywhere(layout):
    x, at_once = np.random.default_rng(0).normal(size=(9, 2, 8)), Rotary(100.0, 4, layout)
    found = rotate(evolve(at_once, start=3), x, np.arange(9))
    np.testing.assert_array_equal(found[..., 3:7], rotate(at_once, x[..., 3:7], np.arange(9)))
    np.testing.assert_array_equal(found[..., [0, 1, 2, 7]], x[..., [0, 1, 2, 7]])


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_products_depend_on_the_distance_only(layout):
    rotary = Rotary(100.0, HEAD, layout)
    q, k = RNG.normal(size=(2, 1, 1, HEAD))
    turn = lambda x, at: rotate(rotary, np.repeat(x, at + 1, 0), np.arange(at + 1))[at, 0]  # noqa: E731
    assert turn(q, 7) @ turn(k, 3) == pytest.approx(turn(q, 24) @ turn(k, 20), rel=1e-11)
    assert np.linalg.norm(turn(q, 24)) == pytest.approx(np.linalg.norm(q), rel=1e-13)


def test_nothing_is_turned_where_there_is_no_rotary():
    x = RNG.normal(size=(3, 2, 4))
    assert rotate(None, x, np.arange(3)) is x
