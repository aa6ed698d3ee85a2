"""Attention against PyTorch's scaled_dot_product_attention, and in loops."""

import numpy as np
import pytest
from attrs import evolve

from llmtrace.schema import attention
from llmtrace.schema.norm import apply
from llmtrace.spec import Attention, Gate, Norm
from tests.specs import GQA, capture, chosen_keys, equations, model, sequential

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(3)
LENGTH = 7
IDS = RNG.integers(0, 11, LENGTH)


def run(a: Attention, seed=0):
    """Signals of a one-block model, and its weights, by the short names of the attention part."""
    built = equations(model(sequential(a)), seed)
    at = "blocks.0.attn."
    signals = capture(built, IDS)
    return {name.removeprefix(at): array for name, array in signals.items() if name.startswith(at)} | {
        "x": signals["blocks.0.ln1.out"]
    }, {name.removeprefix(at): array for name, array in built.weights.items() if name.startswith(at)}


def pytorch(a: Attention, s, mask):
    q, k, v = (torch.from_numpy(np.ascontiguousarray(s[name].transpose(1, 0, 2))) for name in ("rot_q", "rot_k", "v"))
    z = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=torch.from_numpy(mask), scale=a.scale, enable_gqa=a.heads != a.kv_heads
    )
    return z.numpy().transpose(1, 0, 2)


def causal(window=None):
    place = np.arange(LENGTH)
    seen = place[:, None] >= place
    return seen if window is None else seen & (place[:, None] - place < window)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("window", [None, 1, 3, 100])
def test_z_is_scaled_dot_product_attention(kv_heads, window):
    a = evolve(GQA, kv_heads=kv_heads, window=window, d_value=5, scale=0.3)
    s, _ = run(a)
    np.testing.assert_allclose(s["z"], pytorch(a, s, causal(window)), rtol=1e-11, atol=1e-13)


def test_alibi_is_an_additive_mask_of_slope_times_distance():
    slopes = (0.5, 0.25, 0.125, 0.0625)
    a = evolve(GQA, rotary=None, slopes=slopes)
    s, _ = run(a)
    place = np.arange(LENGTH)
    bias = np.array(slopes)[:, None, None] * (place[None, :] - place[:, None])
    np.testing.assert_allclose(s["z"], pytorch(a, s, np.where(causal(), bias, -np.inf)), rtol=1e-11, atol=1e-13)


def test_masked_scores_are_minus_infinity_and_no_others():
    s, _ = run(evolve(GQA, window=3))
    np.testing.assert_array_equal(np.isneginf(s["scores"]), np.broadcast_to(~causal(3), s["scores"].shape))
    assert np.isfinite(s["scores"][:, causal(3)]).all()


def test_scores_are_capped_before_they_are_masked():
    a = evolve(GQA, softcap=0.2)
    s, _ = run(a)
    for head in range(4):
        for query in range(LENGTH):
            for key in range(query + 1):
                raw = a.scale * s["rot_q"][query, head] @ s["rot_k"][key, head // 2]
                assert s["scores"][head, query, key] == pytest.approx(0.2 * np.tanh(raw / 0.2), rel=1e-11)


def test_a_sink_takes_mass_and_reads_no_token():
    s, w = run(evolve(GQA, sinks=True))
    for head in range(4):
        logits = np.append(s["scores"][head, -1], w["sinks"][head])
        expected = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(s["pattern"][head, -1], expected[:-1], rtol=1e-12)
        assert s["sink"][head, -1] == pytest.approx(expected[-1], rel=1e-12)
    np.testing.assert_allclose(s["pattern"].sum(-1) + s["sink"], 1, rtol=1e-13)


def test_projections_are_a_matrix_a_head_and_a_bias():
    s, w = run(GQA)
    for which, letter in (("q", "Q"), ("k", "K"), ("v", "V")):
        expected = np.einsum("td,hde->the", s["x"], w[f"W_{letter}"]) + w[f"b_{letter}"]
        np.testing.assert_allclose(s[which], expected, rtol=1e-11, atol=1e-13)


def test_a_clip_comes_after_the_bias():
    s, w = run(evolve(GQA, clip=0.4))
    raw = np.einsum("td,hde->the", s["x"], w["W_Q"]) + w["b_Q"]
    assert np.abs(raw).max() > 0.4
    np.testing.assert_allclose(s["q"], np.clip(raw, -0.4, 0.4), rtol=1e-11, atol=1e-13)


def test_the_output_is_the_sum_of_the_heads_results_and_a_bias():
    s, w = run(GQA)
    np.testing.assert_allclose(s["result"], np.einsum("the,hed->thd", s["z_post"], w["W_O"]), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(s["out"], s["result"].sum(1) + w["b_O"], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("per_head", [False, True])
def test_a_gate_multiplies_the_normed_z(per_head):
    s, w = run(evolve(GQA, gate=Gate("silu", per_head), z_norm=Norm(1e-6, over="d_value")))
    pre = np.einsum("td,hde->the", s["x"], w["W_gate"])
    gate = pre / (1 + np.exp(-pre))
    assert gate.shape[-1] == (1 if per_head else 6)
    normed = s["z"] / np.sqrt((s["z"] ** 2).mean(-1, keepdims=True) + 1e-6) * w["z_norm.w"]
    np.testing.assert_allclose(s["gate"], gate, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(s["z_post"], normed * gate, rtol=1e-11, atol=1e-13)


def test_z_post_is_z_where_nothing_stands_between():
    s, _ = run(GQA)
    np.testing.assert_array_equal(s["z_post"], s["z"])


def test_a_norm_after_rotary_is_not_one_before_it():
    norm = Norm(1e-6, over="d_head")
    after, w = run(evolve(GQA, q_norm=norm, k_norm=norm, norm_after_rotary=True))
    turned = attention.rotate(GQA.rotary, after["q"], np.arange(LENGTH))
    np.testing.assert_allclose(after["rot_q"], apply(norm, turned, w["q_norm.w"]), rtol=1e-12)
    before, w = run(evolve(GQA, q_norm=norm, k_norm=norm))
    normed = before["q"] / np.sqrt((before["q"] ** 2).mean(-1, keepdims=True) + 1e-6) * w["q_norm.w"]
    np.testing.assert_allclose(before["q_norm.out"], normed, rtol=1e-12)
    np.testing.assert_allclose(before["rot_q"], attention.rotate(GQA.rotary, normed, np.arange(LENGTH)), rtol=1e-12)
    assert not np.allclose(apply(norm, turned, w["q_norm.w"]), before["rot_q"])


def test_sinks_that_are_taken_off_z_leave_what_sinks_in_the_pattern_would():
    s, w = run(evolve(GQA, sinks=True, sinks_after=True))
    np.testing.assert_allclose(s["pattern"].sum(-1), 1, rtol=1e-12)
    mass = np.exp(s["scores"])
    shared = mass / (mass.sum(-1, keepdims=True) + np.exp(w["sinks"])[:, None, None])
    v = np.repeat(s["v"], 2, axis=1)
    np.testing.assert_allclose(s["z_post"], np.einsum("hqk,khd->qhd", shared, v), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(s["kept"], 1 - s["sink"], rtol=1e-12)


def test_keys_that_are_not_chosen_are_not_seen():
    s, _ = run(evolve(GQA, selective=True))
    chosen = chosen_keys(LENGTH).astype(bool) & causal()
    assert (~chosen & causal()).any()
    np.testing.assert_allclose(s["z"], pytorch(GQA, s, chosen), rtol=1e-11, atol=1e-13)


def test_a_mask_that_the_tokens_make_is_added_to_scores():
    s, _ = run(evolve(GQA, masked=True))
    np.testing.assert_allclose(s["z"], pytorch(GQA, s, np.where(causal(), s["mask"], -np.inf)), rtol=1e-11, atol=1e-13)


def test_a_gate_may_have_a_number_for_each_head_added_before_its_activation():
    s, w = run(evolve(GQA, gate=Gate(bias=True)))
    pre = np.einsum("td,hdc->thc", s["x"], w["W_gate"]) + w["b_gate"].reshape(1, -1, 1)
    np.testing.assert_allclose(s["gate"], 1 / (1 + np.exp(-pre)), rtol=1e-12)


def test_what_becomes_of_a_mixture_that_is_not_known_is_captured_and_projected():
    s, w = run(evolve(GQA, mixed=False))
    np.testing.assert_allclose(
        s["out"] - w["b_O"], np.einsum("thc,hcd->td", s["z_post"], w["W_O"]), rtol=1e-11, atol=1e-13
    )
    assert np.abs(s["z_post"] - s["z"]).max() > 0.1


def test_heads_that_are_made_in_another_way_have_no_matrices_and_all_that_is_made_of_them_has_equations():
    a = Attention(4, 2, 6, 5, 0.4, projected=False)
    s, w = run(a)
    assert not {"q", "k"} & set(s)
    assert set(w) == {"W_O"}
    np.testing.assert_allclose(s["z"], pytorch(a, s, causal()), rtol=1e-11, atol=1e-13)
