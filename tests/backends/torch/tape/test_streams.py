"""Residual streams that are no mere sums, as they are read off running models, against transformers' own hidden states, parameters and modules."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from llmtrace.errors import UnsupportedModelError
from llmtrace.model import Model
from llmtrace.spec import Carry, Mixer
from llmtrace.trace import ModelInfo
from llmtrace_torch.tape.found import find
from llmtrace_torch.tape.session import TapedSession
from tests.benchmarks.coverage.tiny import tiny

INFO = ModelInfo(
    source="tiny", backend="torch", runtime="PyTorch", versions={}, fingerprint="", weights="float32", device="cpu", settings={}
)  # fmt: skip
IDS = [5, 17, 3, 99, 42, 8, 64, 2, 23, 11, 77, 31, 50, 6, 19, 88, 4, 71, 12]


@pytest.fixture
def opened():
    """A tiny model of a type, opened by its run."""

    def open_type(kind, change=lambda _model: None):
        model = tiny(kind, "eager").requires_grad_(False)
        change(model)
        found = find(model, kind)
        return model, Model(TapedSession(model, found, INFO, None))

    return open_type


def hidden(model):
    with torch.no_grad():
        states = model(torch.tensor([IDS]), output_hidden_states=True, use_cache=False).hidden_states
    return [each[0].numpy() for each in states]


def watched(model, *modules):
    """What some modules return in a run."""
    seen = {}
    hooks = [
        module.register_forward_hook(lambda _m, _a, out, place=place: seen.setdefault(place, out))
        for place, module in enumerate(modules)
    ]
    with torch.no_grad():
        model(torch.tensor([IDS]), use_cache=False)
    for hook in hooks:
        hook.remove()
    found = [seen[place][0] if isinstance(seen[place], tuple) else seen[place] for place in range(len(modules))]
    return [each.reshape(len(IDS), -1).numpy() for each in found]


def violated(model):
    return [each.site for each in model.verify(IDS) if each.status == "violated"]


@pytest.mark.parametrize("kind", ["doge", "beam", "minimax", "zaya", "zamba", "gemma4_text"])
def test_the_stream_before_each_block_is_transformers_own(kind, opened):
    model, ours = opened(kind)
    trace, states = ours.trace(IDS), hidden(model)
    for layer in range(len(ours.spec.blocks)):
        np.testing.assert_array_equal(trace[f"blocks.{layer}.resid_pre"].array, states[layer])
    np.testing.assert_array_equal(trace["ln_final.out"].array, states[-1])
    assert not violated(ours)


def test_learned_factors_of_the_stream_are_the_models_own(opened):
    model, ours = opened("doge")
    for at, (layer, block) in enumerate(zip(model.model.layers, ours.spec.blocks, strict=True)):
        assert (block.carry_mid, block.carry_post) == (Carry(weight=True), Carry(weight=True))
        np.testing.assert_array_equal(ours.equations.weights[f"blocks.{at}.resid_mid.w"], layer.input_residual)
        np.testing.assert_array_equal(
            ours.equations.weights[f"blocks.{at}.resid_post.w"], layer.post_attention_residual
        )


def test_factors_of_depth_are_what_the_formula_gives(opened):
    _, ours = opened("beam")
    for layer, block in enumerate(ours.spec.blocks):
        first = 2 * (layer + 1)
        for carry, place in ((block.carry_mid, first), (block.carry_post, first + 1)):
            assert carry == Carry("", pytest.approx(math.sqrt((place - 1) / place), rel=1e-6))


def test_learned_biases_and_factors_of_the_stream_and_of_the_embedding_are_read(opened):
    model, ours = opened("zaya")
    weights, layer = ours.equations.weights, model.model.layers[0]
    assert ours.spec.blocks[0].carry_pre == ours.spec.blocks[1].carry_mid == Carry(weight=True, bias=True)
    np.testing.assert_array_equal(weights["blocks.0.resid_pre.b"], model.model.input_hidden_states_bias)
    np.testing.assert_array_equal(weights["blocks.0.resid_mid.w"], layer.post_attention_residual_scale.residual_scale)
    np.testing.assert_array_equal(weights["blocks.0.resid_post.b"], layer.post_mlp_residual_scale.residual_bias)
    np.testing.assert_array_equal(ours.trace(IDS)["embed"].array, watched(model, model.model.embed_tokens)[0])


@pytest.mark.parametrize("kind", ["openai-gpt", "git"])
def test_post_norm_blocks_carry_on_what_their_norms_make(kind, opened):
    model, ours = opened(kind)
    trace, states = ours.trace(IDS), hidden(model)
    assert ours.session._found.notes == ()
    second, normed = ours.spec.blocks[1], trace["blocks.1.ln1.out"].array
    assert (second.carry_mid, second.carry_post) == (Carry("ln1.out"), Carry("ln2.out"))
    np.testing.assert_array_equal(normed, states[1])
    np.testing.assert_array_equal(trace["ln_final.out"].array, states[-1])
    x = trace["blocks.0.resid_post"].array.astype(np.float64)
    assert np.abs(x - normed).max() > 0.1
    assert np.abs(trace["blocks.1.resid_mid"].array - normed - trace["blocks.1.attn_out"].array).max() < 1e-5
    assert not violated(ours)


def test_norms_go_on_and_are_multiplied(opened):
    def weigh(model):
        first = model.model.layers[0]
        first.attn_alpha_factor, first.mlp_alpha_factor, first.mlp_beta_factor = 0.7, 3.5565588200778455, 0.3

    _, ours = opened("minimax", weigh)
    block = ours.spec.blocks[0]
    assert block.carry_mid == Carry("ln1.out", 0.7)
    assert block.carry_post == Carry("ln2.out", pytest.approx(3.5565588200778455, rel=1e-7))
    assert block.branch("mlp").multiplier == 0.3
    assert not violated(ours)


def test_a_branch_of_per_layer_embeddings_is_a_third_whose_contribution_is_known(opened):
    model, ours = opened("gemma4_text")
    layers = model.model.layers
    seen = watched(model, *(layer.post_per_layer_input_norm for layer in layers))
    trace = ours.trace(IDS)
    for layer, added in enumerate(seen):
        assert [branch.name for branch in ours.spec.blocks[layer].branches] == ["attn", "mlp", "mixer"]
        np.testing.assert_array_equal(trace[f"blocks.{layer}.mixer_out"].array, added)
    notes = [
        note for layer in range(len(layers)) for note in ours.session._found.notes if f"blocks.{layer}.mixer" in note
    ]
    assert all("it reads, besides the stream, something else that was made of the tokens" in note for note in notes)


def test_a_shortcut_is_a_branch_of_the_block_in_which_it_is_added_though_it_comes_before(opened):
    model, ours = opened("longcat_flash")
    (shortcut,) = watched(model, model.model.layers[0].mlp)
    assert [branch.name for branch in ours.spec.blocks[0].branches] == ["attn", "mlp"]
    assert isinstance(ours.spec.blocks[1].branch("mixer").module, Mixer)
    trace = ours.trace(IDS)
    np.testing.assert_array_equal(trace["blocks.1.mixer_out"].array, shortcut)
    np.testing.assert_array_equal(trace["blocks.2.resid_pre"].array, hidden(model)[1])
    order = list(dict.fromkeys(site.split(".")[1] for site in trace.signals if site.startswith("blocks.")))
    assert order == sorted(order)
    assert not violated(ours)


@pytest.mark.parametrize(("kind", "more"), [("moshi", 1), ("mllama", 8)])
def test_tokens_that_are_read_and_never_predicted_are_tokens(kind, more, opened):
    model, ours = opened(kind)
    rows, logits = model.get_input_embeddings().weight.shape[0], model.get_output_embeddings().weight.shape[0]
    assert rows == logits + more
    assert (ours.spec.vocab, ours.spec.predicted, ours.spec.unembed.vocab) == (rows, logits, logits)
    trace = ours.trace([3, rows - 1, 7])
    np.testing.assert_array_equal(trace["embed"].array[1], model.get_input_embeddings().weight[-1])
    assert trace["logits"].array.shape == (3, logits)


def test_a_table_of_sines_is_a_table_of_positions(opened):
    model, ours = opened("ctrl")
    np.testing.assert_array_equal(ours.trace(IDS)["pos_embed"].array, model.transformer.pos_encoding[: len(IDS)])
    assert ours.spec.embed.scale == pytest.approx(math.sqrt(ours.spec.d_model))
    np.testing.assert_array_equal(ours.trace(IDS)["blocks.0.resid_pre"].array, hidden(model)[0])


def test_a_prediction_head_is_read_between_the_final_norm_and_the_unembedding(opened):
    model, ours = opened("modernbert-decoder")
    made = watched(model, model.model.final_norm, model.lm_head.dense, model.lm_head.act, model.lm_head)
    trace = ours.trace(IDS)
    for site, array in zip(("ln_final.out", "head.pre", "head.post", "head_norm.out"), made, strict=True):
        np.testing.assert_array_equal(trace[site].array, array)
    np.testing.assert_array_equal(ours.equations.weights["head.W_in"], model.lm_head.dense.weight.T)
    assert not violated(ours)


def test_a_model_that_makes_itself_ready_in_its_first_run_is_read_as_it_is_then(opened):
    _, ours = opened("rwkv")
    assert [len(block.branches) for block in ours.spec.blocks] == [2, 2]
    assert not violated(ours)


@pytest.mark.parametrize(("kind", "streams"), [("deepseek_v4", 4), ("gemma3n_text", 4), ("reformer", 2)])
def test_several_streams_are_refused_by_their_number(kind, streams, opened):
    with pytest.raises(UnsupportedModelError, match=f"spread into {streams} streams"):
        opened(kind)
