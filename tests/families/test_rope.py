"""Every kind of rotary scaling against transformers' own, within the trained context and beyond it."""

from __future__ import annotations

import pytest

from llmtrace.errors import ModelOpenError, UnsupportedModelError
from llmtrace.families import spec_of
from llmtrace.spec import Linear, LongRope, Yarn

SHORT, LONG = 12, 48
"""Prompt lengths on either side of the trained context."""
TRAINED = {"original_max_position_embeddings": 16, "rope_theta": 100.0}
STRETCH = {"short_factor": [1.0 + 0.1 * i for i in range(12)], "long_factor": [1.0 + i for i in range(12)]}

SCALINGS = {
    "default": {"rope_type": "default", "rope_theta": 77.0},
    "linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, **TRAINED},
    "yarn, its own ramp": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 4.0, "beta_slow": 0.5, **TRAINED},
    "yarn, untruncated": {"rope_type": "yarn", "factor": 4.0, "truncate": False, "beta_fast": 3.0, **TRAINED},
    "yarn, given gain": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.7, **TRAINED},
    "yarn, two mscales": {"rope_type": "yarn", "factor": 4.0, "mscale": 2.0, "mscale_all_dim": 0.5, **TRAINED},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **TRAINED},
    "longrope": {"rope_type": "longrope", "factor": 4.0, **STRETCH, **TRAINED},
    "longrope, given gain": {"rope_type": "longrope", "factor": 4.0, "attention_factor": 1.5, **STRETCH, **TRAINED},
}


def prompt(length):
    return [token * 7 % 97 for token in range(length)]


@pytest.mark.parametrize("length", [SHORT, LONG])
@pytest.mark.parametrize("kind", SCALINGS)
def test_scaling_agrees_with_transformers(kind, length, disagreement):
    assert disagreement("llama", prompt(length), rope_parameters=dict(SCALINGS[kind])) < 1e-5


@pytest.mark.parametrize("length", [SHORT, LONG])
def test_dynamic_scaling_agrees_with_transformers(length, disagreement):
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 100.0}
    assert disagreement("llama", prompt(length), rope_parameters=rope, max_position_embeddings=16) < 1e-5


@pytest.mark.parametrize("length", [SHORT, LONG])
def test_phi3_takes_its_trained_context_from_the_config(length, disagreement):
    stretch = {"short_factor": [1.1] * 8, "long_factor": [1.0 + i for i in range(8)]}
    rope = {"rope_type": "longrope", "rope_theta": 100.0, **stretch}
    assert disagreement("phi3", prompt(length), rope_parameters=rope, original_max_position_embeddings=16) < 1e-5


def test_phi3_in_the_old_spelling_does_too():
    stretch = {"type": "su", "short_factor": [1.1] * 8, "long_factor": [2.0] * 8}
    old = LLAMA | {"model_type": "phi3", "original_max_position_embeddings": 16, "rope_scaling": stretch}
    found = spec_of(old).blocks[0].attention.rotary.scaling
    assert found == LongRope(
        (1.1,) * 8, (2.0,) * 8, 16, pytest.approx(1.5**0.5)
    )  # 64 / 16 = 4, and ln 4 / ln 16 is a half


@pytest.mark.parametrize("family", ["gpt_neox", "phi", "stablelm", "nemotron"])
def test_scaling_of_a_partial_rotary_agrees(family, disagreement):
    rope = {"rope_type": "yarn", "factor": 4.0, "partial_rotary_factor": 0.5, **TRAINED}
    assert disagreement(family, prompt(LONG), rope_parameters=rope) < 1e-5


def test_gemma3_scales_its_full_layers_only(disagreement):
    rope = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
    }
    assert disagreement("gemma3_text", prompt(LONG), rope_parameters=rope) < 1e-5


def test_olmo3_scales_its_full_layers_only(disagreement):
    rope = {
        "full_attention": {"rope_type": "yarn", "factor": 4.0, **TRAINED},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    }
    assert disagreement("olmo3", prompt(LONG), rope_parameters=rope) < 1e-5


def test_gpt_oss_with_its_own_yarn_agrees(disagreement):
    rope = {"rope_type": "yarn", "factor": 4.0, "truncate": False, "beta_fast": 3.0, "beta_slow": 1.0, **TRAINED}
    assert disagreement("gpt_oss", prompt(LONG), rope_parameters=rope) < 1e-5


LLAMA = {
    "model_type": "llama", "vocab_size": 97, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
    "intermediate_size": 96, "max_position_embeddings": 64,
}  # fmt: skip


def scaling(**config):
    """The scaling that a config means."""
    return spec_of(LLAMA | config).blocks[0].attention.rotary.scaling


def test_the_old_spelling_means_the_same():
    assert scaling(rope_scaling={"type": "linear", "factor": 4}) == Linear(4.0)
    assert scaling(rope_scaling={"rope_type": "yarn", "factor": 4}) == Yarn(4.0, 64)
    stretch = {"short_factor": [1] * 8, "long_factor": [2] * 8, "factor": 1}
    assert scaling(rope_scaling={"type": "su", **stretch}) == LongRope((1,) * 8, (2,) * 8, 64)
    assert spec_of(LLAMA | {"rope_theta": 5e5}).blocks[0].attention.rotary.theta == 5e5


def test_dynamic_scaling_lengthens_the_context():
    assert spec_of(LLAMA | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}).context == 128
    assert spec_of(LLAMA | {"rope_scaling": {"type": "linear", "factor": 2.0}}).context == 64


def test_an_unknown_type_is_refused_with_a_near_name():
    with pytest.raises(UnsupportedModelError, match=r"llama asks for rope_type 'lama3'.* Did you mean llama3\?"):
        scaling(rope_scaling={"rope_type": "lama3", "factor": 8.0})
    with pytest.raises(UnsupportedModelError, match="'mrope'"):
        scaling(rope_scaling={"type": "mrope", "mrope_section": [1, 2, 3]})


def test_a_missing_parameter_is_named():
    with pytest.raises(ModelOpenError, match="lacks 'low_freq_factor'"):
        scaling(rope_scaling={"rope_type": "llama3", "factor": 8.0})


def test_an_odd_number_of_rotated_channels_is_refused():
    with pytest.raises(UnsupportedModelError, match="rotates 5 of 16 channels"):
        spec_of(LLAMA | {"partial_rotary_factor": 0.34})


def test_factors_of_another_length_are_refused():
    with pytest.raises(ModelOpenError, match="not 8 numbers each"):
        scaling(rope_scaling={"type": "longrope", "short_factor": [1], "long_factor": [1], "factor": 2})
