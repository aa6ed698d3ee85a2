"""What enters the residual stream, its sums, and what leaves it."""

import math

import numpy as np
import pytest
from attrs import evolve

from llmtrace.errors import SignalUnavailableError
from llmtrace.spec import Block, Branch, Carry, Norm, PreNorm
from tests.specs import GATED, SPECS, capture, equations, inputs, model

IDS = (1, 4, 2, 4)


def run(name, **fields):
    built = equations(evolve(SPECS[name], **fields))
    return capture(built, IDS), built.weights


def test_tokens_are_looked_up_and_scaled():
    s, w = run("sandwich")
    np.testing.assert_array_equal(s["embed"], 3.0 * np.stack([w["embed.W_E"][token] for token in IDS]))


def test_an_embedding_may_be_normed():
    s, w = run("normed embedding")
    raw = 2.0 * w["embed.W_E"][list(IDS)]
    centred = raw - raw.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w["embed.w"] + w["embed.b"]
    np.testing.assert_allclose(s["embed"], expected, rtol=1e-12)


def test_learned_positions_start_at_their_offset():
    s, w = run("learned positions")
    np.testing.assert_array_equal(s["pos_embed"], w["pos_embed.W_pos"][2:6])
    np.testing.assert_array_equal(s["blocks.0.resid_pre"], s["embed"] + s["pos_embed"])


def test_sequential_branches_add_one_after_the_other():
    s, _ = run("sequential")
    np.testing.assert_allclose(s["blocks.0.resid_mid"], s["blocks.0.resid_pre"] + s["blocks.0.attn_out"], rtol=1e-13)
    np.testing.assert_allclose(
        s["blocks.0.resid_post"], s["blocks.0.resid_mid"] + s["blocks.0.mlp_out"], rtol=1e-12, atol=1e-14
    )
    np.testing.assert_array_equal(s["blocks.1.resid_pre"], s["blocks.0.resid_post"])


def test_parallel_branches_read_the_same_and_are_scaled_together():
    s, _ = run("parallel")
    assert "blocks.0.resid_mid" not in s
    np.testing.assert_allclose(s["blocks.0.attn_out"], 0.5 * s["blocks.0.attn.out"], rtol=1e-13)
    total = s["blocks.0.resid_pre"] + s["blocks.0.attn_out"] + s["blocks.0.mlp_out"]
    np.testing.assert_allclose(s["blocks.0.resid_post"], 0.7 * total, rtol=1e-12, atol=1e-14)


def test_a_post_norm_stands_between_a_modules_output_and_its_contribution():
    s, w = run("sandwich")
    out = s["blocks.0.mlp.out"]
    expected = out / np.sqrt((out**2).mean(-1, keepdims=True) + 1e-5) * w["blocks.0.mlp_post.w"]
    np.testing.assert_allclose(s["blocks.0.mlp_out"], expected, rtol=1e-12)
    assert not np.allclose(s["blocks.0.mlp_out"], out)


def test_a_third_branch_adds_to_the_same_stream():
    s, _ = run("mixer")
    total = s["blocks.0.resid_pre"] + s["blocks.0.attn_out"] + s["blocks.0.mixer_out"] + s["blocks.0.mlp_out"]
    np.testing.assert_allclose(s["blocks.0.resid_post"], total, rtol=1e-12, atol=1e-14)


def test_what_a_mixer_puts_out_is_not_computed():
    built = equations(SPECS["mixer"])
    with pytest.raises(SignalUnavailableError, match="mamba2 branch is opaque"):
        dict(built.run(inputs(IDS), ["logits"]))


def test_logits_are_scaled_and_then_capped():
    s, w = run("sandwich")
    raw = s["ln_final.out"] @ w["unembed.W_U"]
    np.testing.assert_allclose(s["logits"], 4.0 * np.tanh(0.5 * raw / 4.0), rtol=1e-12)


def test_an_unembedding_bias_is_scaled_with_the_rest():
    s, w = run("learned positions", unembed=evolve(SPECS["learned positions"].unembed, scale=0.25))
    np.testing.assert_allclose(
        s["logits"], 0.25 * (s["ln_final.out"] @ w["unembed.W_U"] + w["unembed.b_U"]), rtol=1e-12, atol=1e-14
    )


def test_what_a_sum_carries_on_of_the_stream_is_shifted_and_multiplied_and_branches_are_not():
    s, w = run("carried stream")
    at = "blocks.0."
    np.testing.assert_allclose(s[at + "resid_pre"], s["embed"] + w[at + "resid_pre.b"], rtol=1e-13)
    mid = 0.6 * w[at + "resid_mid.w"] * s[at + "resid_pre"] + s[at + "attn_out"]
    np.testing.assert_allclose(s[at + "resid_mid"], mid, rtol=1e-12)
    kept = 0.8 * w[at + "resid_post.w"] * (s[at + "resid_mid"] + w[at + "resid_post.b"])
    np.testing.assert_allclose(s[at + "resid_post"], kept + s[at + "mlp_out"], rtol=1e-12, atol=1e-13)


def test_a_branch_may_be_multiplied_by_one_number_a_channel():
    s, w = run("carried stream")
    at = "blocks.0."
    np.testing.assert_allclose(s[at + "attn_out"], w[at + "attn_out.w"] * s[at + "attn.out"], rtol=1e-13)
    np.testing.assert_allclose(s[at + "mlp_out"], 0.7 * w[at + "mlp_out.w"] * s[at + "mlp_post.out"], rtol=1e-13)


def test_a_norms_output_may_go_on_in_the_streams_place():
    s, _ = run("stream through norms")
    for layer in (0, 1):
        at = f"blocks.{layer}."
        np.testing.assert_allclose(s[at + "resid_mid"], s[at + "ln1.out"] + s[at + "attn_out"], rtol=1e-13)
        np.testing.assert_allclose(s[at + "resid_post"], 0.5 * s[at + "ln2.out"] + s[at + "mlp_out"], rtol=1e-12)


def test_a_norm_that_the_stream_alone_goes_through_is_there():
    block = Block(
        (PreNorm("ln1", "resid_pre", Norm(1e-5)),), (Branch("mlp", "resid_pre", GATED),), carry_post=Carry("ln1.out")
    )
    built = equations(model(block))
    s = capture(built, IDS)
    x = s["blocks.0.resid_pre"]
    normed = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * built.weights["blocks.0.ln1.w"]
    np.testing.assert_allclose(s["blocks.0.resid_post"], normed + s["blocks.0.mlp_out"], rtol=1e-12)


def test_there_may_be_fewer_logits_than_tokens():
    s, w = run("fewer logits than tokens")
    assert w["embed.W_E"].shape == (11, 12)
    assert w["unembed.W_U"].shape == (12, 8)
    np.testing.assert_allclose(s["logits"], s["ln_final.out"] @ w["unembed.W_U"] + w["unembed.b_U"], rtol=1e-12)


def test_a_head_stands_between_the_final_norm_and_the_unembedding():
    s, w = run("a head")
    pre = s["ln_final.out"] @ w["head.W_in"] + w["head.b_in"]
    np.testing.assert_allclose(s["head.pre"], pre, rtol=1e-12)
    x = 0.5 * pre * (1 + np.vectorize(math.erf)(pre / math.sqrt(2)))
    np.testing.assert_allclose(s["head.post"], x, rtol=1e-12, atol=1e-14)
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * w["head_norm.w"] + w["head_norm.b"]
    np.testing.assert_allclose(s["logits"], x @ w["unembed.W_U"], rtol=1e-9, atol=1e-12)
