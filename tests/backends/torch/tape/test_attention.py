"""Attention that is more than a softmax of projected heads, as it is read off running models, against transformers' own outputs and weights."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from llmtrace.model import Model
from llmtrace.trace import ModelInfo
from llmtrace_torch.tape.found import find
from llmtrace_torch.tape.session import TapedSession
from tests.benchmarks.coverage.tiny import tiny

INFO = ModelInfo(
    source="tiny", backend="torch", runtime="PyTorch", versions={}, fingerprint="", weights="float32", device="cpu", settings={}
)  # fmt: skip
IDS = [5, 17, 3, 99, 42, 8, 64, 2, 23, 11, 77, 31, 50, 6, 19, 88, 4, 71, 12]


def opened(kind, attention="eager"):
    model = tiny(kind, attention).requires_grad_(False)
    found = find(model, kind)
    return model, Model(TapedSession(model, found, INFO, None)), found


@contextmanager
def outputs(module):
    """What a module returns while this is entered."""
    seen = []
    hook = module.register_forward_hook(lambda _module, _args, output: seen.append(output))
    try:
        yield seen
    finally:
        hook.remove()


def run(model):
    with torch.no_grad():
        return model(torch.tensor([IDS]), output_attentions=True, use_cache=False)


def seeing(width):
    """A hook by which an attention's queries see so many keys."""

    def hide(_module, args, kwargs):
        mask = kwargs["attention_mask"]
        early = torch.ones(mask.shape[-2:]).tril(-width)
        return args, {**kwargs, "attention_mask": mask + early * torch.finfo(mask.dtype).min}

    return hide


def test_layers_whose_operators_are_told_other_numbers_are_read_apart():
    """Both windows are wider than the prompt on which layers are held to the equations."""
    model, windows = tiny("llama", "eager").requires_grad_(False), (20, 30)
    for width, layer in zip(windows, model.model.layers, strict=True):
        layer.self_attn.register_forward_pre_hook(seeing(width), with_kwargs=True)
    assert tuple(block.attention.window for block in find(model, "llama").spec.blocks) == windows


@pytest.mark.parametrize("kind", ["falcon_h1", "dots3_note_text"])
def test_where_no_one_matrix_makes_heads_they_are_captured_and_the_pattern_follows_from_them(kind):
    model, model_of, found = opened(kind)
    assert not model_of.spec.blocks[0].attention.projected
    assert not {f"blocks.0.attn.W_{letter}" for letter in "QKV"} & set(found.weights)
    assert "blocks.0.attn.rot_q is captured" in found.notes[0]
    trace = model_of.trace(IDS, capture="**.attn.{rot_q,rot_k,v,z,selected}")
    np.testing.assert_allclose(trace["blocks.0.attn.pattern"].array, run(model).attentions[0][0], atol=2e-5)
    assert not [each.site for each in model_of.verify(IDS) if each.status == "violated"]


@pytest.mark.parametrize("kind", ["deepseek_v3", "minicpm3"])
def test_latents_are_what_the_modules_hand_on_and_their_weights_are_the_modules_own(kind):
    """DeepSeek turns pairs of neighbours and puts them halves apart, so columns of its queries stand in another order; MiniCPM's do not."""
    model, model_of, found = opened(kind)
    module, config = model.model.layers[0].self_attn, model.config
    attention = model_of.spec.blocks[0].attention
    assert found.notes == ()
    assert (attention.q_latent.rank, attention.kv_latent.rank) == (config.q_lora_rank, config.kv_lora_rank)
    assert attention.shared == attention.rotary.width == config.qk_rope_head_dim
    assert attention.rotary.start == config.qk_nope_head_dim
    with outputs(module.kv_b_proj) as made, outputs(module.q_a_layernorm) as q, outputs(module.kv_a_layernorm) as kv:
        run(model)
    values = made[0].reshape(len(IDS), config.num_attention_heads, -1)[..., -config.v_head_dim :]
    trace = model_of.trace(IDS)
    at = "blocks.0.attn."
    np.testing.assert_array_equal(trace[at + "v"].array, values)
    np.testing.assert_array_equal(trace[at + "q_latent_norm.out"].array, q[0][0])
    np.testing.assert_array_equal(trace[at + "kv_latent_norm.out"].array, kv[0][0])
    weights = {name: source.read() for name, source in found.weights.items() if name.startswith(at)}
    np.testing.assert_array_equal(weights[at + "q_latent.W"], module.q_a_proj.weight.T)
    down = module.kv_a_proj_with_mqa.weight.T
    np.testing.assert_array_equal(weights[at + "kv_latent.W"], down[:, : config.kv_lora_rank])
    assert np.array_equal(np.sort(weights[at + "W_KR"]), np.sort(down[:, config.kv_lora_rank :]))
    assert np.array_equal(weights[at + "W_KR"], down[:, config.kv_lora_rank :]) == (kind == "minicpm3")
    up = module.kv_b_proj.weight.T.reshape(config.kv_lora_rank, config.num_attention_heads, -1).permute(1, 0, 2)
    np.testing.assert_array_equal(weights[at + "W_K"], up[..., : config.qk_nope_head_dim])
    np.testing.assert_array_equal(weights[at + "W_V"], up[..., config.qk_nope_head_dim :])
    for layer, pattern in enumerate(run(model).attentions):
        np.testing.assert_allclose(trace[f"blocks.{layer}.attn.pattern"].array, pattern[0], atol=2e-5)
    assert {each.status for each in model_of.verify(IDS)} == {"holds"}


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_the_keys_that_an_indexer_chose_are_a_signal_and_no_others_are_seen(kernel):
    model, model_of, _ = opened("deepseek_v32", kernel)
    with outputs(model.model.layers[0].self_attn.indexer) as seen:
        run(model)
    chosen = np.zeros((len(IDS), len(IDS)), int)
    np.put_along_axis(chosen, seen[0][0].numpy().astype(np.int64), 1, axis=1)
    assert 0 < chosen[-1].sum() < len(IDS)
    trace = model_of.trace(IDS, capture=["blocks.0.attn.selected", "blocks.0.attn.pattern"])
    np.testing.assert_array_equal(trace["blocks.0.attn.selected"].array, chosen)
    hidden = trace["blocks.0.attn.pattern"].array[:, (chosen == 0) | ~np.tri(len(IDS), dtype=bool)]
    assert (hidden == 0).all()


def test_sinks_that_multiply_the_mixture_are_taken_off_z():
    model, model_of, found = opened("granite_swa")
    attention = model_of.spec.blocks[0].attention
    assert attention.sinks
    assert attention.sinks_after
    np.testing.assert_array_equal(
        found.weights["blocks.0.attn.sinks"].read(), model.model.layers[0].self_attn.sinks.detach()
    )
    trace = model_of.trace(IDS)
    np.testing.assert_allclose(trace["blocks.0.attn.pattern"].array.sum(-1), 1, rtol=1e-5)
    kept = 1 - trace["blocks.0.attn.sink"].array
    assert 0.01 < kept.mean() < 0.99
    np.testing.assert_allclose(
        trace["blocks.0.attn.z_post"].array, trace["blocks.0.attn.z"].array * kept.T[..., None], rtol=1e-4, atol=1e-5
    )


def test_a_factor_on_values_is_in_their_weights():
    model, _, found = opened("mimo_v2_flash")
    attention, read = model.model.layers[0].self_attn, found.weights["blocks.0.attn.W_V"].read()
    assert attention.v_scale != 1
    expected = (attention.v_scale * attention.v_proj.weight).detach().numpy().T
    np.testing.assert_allclose(read.transpose(1, 0, 2).reshape(expected.shape), expected, rtol=1e-6)
    assert found.notes == ()


def test_a_bias_that_is_spread_over_the_prompt_before_it_is_added_is_one():
    model, _, found = opened("gpt_neox_japanese")
    assert "O" in found.spec.blocks[1].attention.biases
    bias = model.gpt_neox_japanese.layers[1].attention.dense_bias
    np.testing.assert_array_equal(found.weights["blocks.1.attn.b_O"].read(), bias.detach())


def test_a_mask_that_follows_from_the_values_is_a_signal():
    """Doge adds a number for each key, made of its value, to what a query scores."""
    model, model_of, found = opened("doge", "eager")
    attention = model.model.layers[0].self_attn
    assert found.notes == ()
    with outputs(attention.dt_proj) as seen:
        run(model)
    mask = model_of.trace(IDS, capture="blocks.0.attn.mask")["blocks.0.attn.mask"].array
    added = torch.exp(attention.A * torch.nn.functional.softplus(seen[0][0])).T.repeat_interleave(2, dim=0)
    causal = np.tri(len(IDS), dtype=bool)
    np.testing.assert_allclose(mask[:, causal], np.broadcast_to(added[:, None], mask.shape)[:, causal], rtol=1e-6)
    assert np.isneginf(mask[:, ~causal]).all()


def test_a_gate_may_have_a_bias_for_each_head():
    model, model_of, found = opened("beam")
    assert model_of.spec.blocks[0].attention.gate.bias
    bias = model.model.layers[0].self_attn.gate_bias
    np.testing.assert_array_equal(found.weights["blocks.0.attn.b_gate"].read(), bias[:, None])
    assert not [each.site for each in model_of.verify(IDS) if each.status == "violated"]


def test_what_becomes_of_the_mixture_may_be_opaque_between_z_and_the_last_matrix():
    model, model_of, _ = opened("axk2")
    attention = model.model.layers[0].self_attn
    read = []
    hook = attention.o_proj.register_forward_pre_hook(lambda _module, args: read.append(args[0]))
    run(model)
    hook.remove()
    trace = model_of.trace(IDS)
    np.testing.assert_array_equal(trace["blocks.0.attn.z_post"].array.reshape(len(IDS), -1), read[0][0])
    assert model_of.equations.steps["blocks.0.attn.z_post"].equation.opaque
    assert {each.site: each.status for each in model_of.verify(IDS)}["blocks.0.attn.out"] == "holds"


def test_what_a_branch_adds_may_be_opaque_after_its_last_matrix():
    """Inkling's branches end in a short convolution over tokens."""
    _, model_of, found = opened("inkling_text")
    assert not model_of.spec.blocks[0].branch("attn").followed
    assert any(note.startswith("blocks.0.attn_out is captured") for note in found.notes)
    trace = model_of.trace(IDS)
    assert np.abs(trace["blocks.0.attn_out"].array - trace["blocks.0.attn.out"].array).max() > 1e-3
    assert not [each.site for each in model_of.verify(IDS) if each.status == "violated"]
