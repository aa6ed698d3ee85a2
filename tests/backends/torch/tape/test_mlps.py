"""MLPs and mixtures of experts of many kinds, read off models that run, against what their own modules are given and return."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from transformers import AutoModelForCausalLM

import llmtrace
from llmtrace.model import Model
from llmtrace.spec import GatedMlp, Groups, Mixer, Mlp, Moe
from llmtrace.trace import ModelInfo
from llmtrace_torch.tape.found import find
from llmtrace_torch.tape.session import TapedSession
from tests.benchmarks.coverage.shrink import small

IDS = [int(each) for each in np.random.default_rng(5).integers(2, 100, 19)]
INFO = ModelInfo(
    source="tiny", backend="torch", runtime="PyTorch", versions={}, fingerprint="", weights="float32", device="cpu", settings={}
)  # fmt: skip


def tiny(kind: str, **config: Any) -> Any:
    """A seeded model of a type in which no weight is trivial; `config` are entries of its config that are other than the small ones."""
    torch.manual_seed(0)
    told = small(kind)
    for name, value in config.items():
        setattr(told, name, value)
    model = AutoModelForCausalLM.from_config(told, dtype=torch.float32, attn_implementation="eager").eval()
    stored = model.state_dict()
    with torch.no_grad():
        for weight in (*model.parameters(), *(buffer for name, buffer in model.named_buffers() if name in stored)):
            if weight.is_floating_point():
                _ = weight.add_(0.1 * torch.randn(weight.shape)) if weight.ndim < 2 else weight.mul_(3)
    return model.requires_grad_(False)


def opened(model: Any) -> tuple[Model, Any]:
    found = find(model, "tiny")
    return Model(TapedSession(model, found, INFO, None)), found


@contextmanager
def watching(model: Any, name: str) -> Iterator[list[Any]]:
    """What a module is given, and what it returns, in a run."""
    seen: list[Any] = []
    hook = model.get_submodule(name).register_forward_hook(
        lambda _, given, named, made: seen.append(([*given, *named.values()], made)), with_kwargs=True
    )
    try:
        yield seen
    finally:
        hook.remove()


def once(model: Any, name: str) -> tuple[list[Any], Any]:
    """The same, of one run on the prompt."""
    with watching(model, name) as seen, torch.no_grad():
        model(torch.tensor([IDS]), use_cache=False)
    return seen[0]


def rows(tensor: torch.Tensor) -> Any:
    return tensor.reshape(len(IDS), -1).numpy()


EXPERTS = {
    "dbrx": ("transformer.blocks.1.ffn", {"scoring": "softmax", "renormalise": True}),
    "phimoe": ("model.layers.1.mlp", {"scoring": "sparsemixer", "near": 0.02}),
    "kolibri1": ("model.layers.1.mlp", {"scoring": "topk_sigmoid", "correction": True}),
    "lfm2_moe": (
        "model.layers.1.feed_forward",
        {"scoring": "sigmoid", "correction": True, "renormalise": True, "eps": 1e-6},
    ),
    "nemotron_h": ("model.layers.1.mixer", {"scoring": "sigmoid", "correction": True}),
    "glm4_moe": ("model.layers.1.mlp", {"scoring": "sigmoid", "renormalise": True}),
}
"""Type to the module that is the mixture, and what the record must say."""


@pytest.mark.parametrize("kind", EXPERTS)
def test_experts_are_chosen_weighed_and_summed_as_by_the_model(kind):
    at, said = EXPERTS[kind]
    model = tiny(kind)
    llm, found = opened(model)
    record = found.spec.blocks[1].branch("mlp").module
    assert isinstance(record, Moe)
    assert {name: getattr(record, name) for name in said} == said
    assert isinstance(record.expert, Mlp if kind == "nemotron_h" else GatedMlp)
    assert {error.status for error in llm.verify(IDS)} <= {"holds", "unchecked"}
    trace = llm.trace(IDS, capture="blocks.1.mlp.*", max_bytes=None)
    (_, index, weights), _ = once(model, f"{at}.experts")
    order = np.argsort(-rows(weights), -1) if not record.correction else np.tile(np.arange(2), (len(IDS), 1))
    sort = np.sort if record.correction else lambda x, axis: x
    mine = trace["blocks.1.mlp.expert_index"].array
    np.testing.assert_array_equal(sort(mine, -1), sort(np.take_along_axis(rows(index), order, -1), -1))
    ranks = [np.argsort(each, -1) for each in (mine, rows(index))]
    own = np.take_along_axis(trace["blocks.1.mlp.router_weights"].array, ranks[0], -1)
    np.testing.assert_allclose(own, np.take_along_axis(rows(weights), ranks[1], -1), rtol=1e-6)
    _, made = once(model, at)
    np.testing.assert_array_equal(trace["blocks.1.mlp.out"].array, rows(made[0] if isinstance(made, tuple) else made))


def test_the_matrices_of_experts_in_a_loop_are_told_by_what_it_makes():
    model = tiny("dbrx")
    _, found = opened(model)
    held = model.transformer.blocks[1].ffn.experts.mlp
    read = {name: found.weights[f"blocks.1.mlp.{name}"].read() for name in ("W_gate", "W_in", "W_out")}
    w1, v1, w2 = (each.view(4, 96, 64).numpy() for each in (held.w1, held.v1, held.w2))
    np.testing.assert_array_equal(read["W_gate"], w1.swapaxes(1, 2))
    np.testing.assert_array_equal(read["W_in"], v1.swapaxes(1, 2))
    np.testing.assert_array_equal(read["W_out"], w2)


def test_an_edit_of_what_a_loop_makes_is_felt():
    model = tiny("dbrx")
    llm, _ = opened(model)
    edits = [llmtrace.ablate("blocks.1.mlp.out")]
    trace = llm.trace(IDS, capture=["blocks.1.resid_mid", "blocks.1.resid_post"], edits=edits)
    np.testing.assert_array_equal(trace["blocks.1.resid_post"].array, trace["blocks.1.resid_mid"].array)


@pytest.mark.parametrize("kind", ["llama4_text", "dbrx", "qwen3_moe"])
def test_prompts_that_run_together_keep_their_own_experts(kind):
    """As many prompts as experts, so that an axis of one could be taken for that of the other."""
    llm, _ = opened(tiny(kind))
    prompts = [IDS, IDS[:7], IDS[3:15], IDS[5:]]
    for prompt, together in zip(
        prompts, llm.trace_many(prompts, capture="blocks.*.mlp.*", max_bytes=None), strict=True
    ):
        alone = llm.trace(prompt, capture="blocks.*.mlp.*", max_bytes=None)
        for site in alone:
            np.testing.assert_allclose(together[site].array, alone[site].array, rtol=1e-4, atol=1e-5, err_msg=site)


class Sine(torch.nn.Module):
    """An activation that has no name."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(x)


def test_experts_in_a_loop_that_do_something_else_are_opaque():
    model = tiny("dbrx")
    model.transformer.blocks[1].ffn.experts.mlp.activation_fn = Sine()
    llm, found = opened(model)
    assert isinstance(found.spec.blocks[0].branch("mlp").module, Moe)
    assert isinstance(found.spec.blocks[1].branch("mlp").module, Mixer)
    assert any("its experts make of random rows" in note for note in found.notes)
    assert {error.status for error in llm.verify(IDS)} <= {"holds", "unchecked"}


def test_experts_that_are_chosen_in_no_order_are_handed_out_best_first():
    """PyTorch sorts few of many only when it is asked to."""
    model = tiny("glm4_moe", n_routed_experts=64, num_local_experts=64, num_experts_per_tok=6)
    model.model.layers[1].mlp.gate.e_score_correction_bias.zero_()  # their weights tell the order
    llm, found = opened(model)
    assert isinstance(found.spec.blocks[1].branch("mlp").module, Moe)
    (_, index, weights), _ = once(model, "model.layers.1.mlp.experts")
    assert (np.diff(rows(weights), axis=-1) > 0).any()
    trace = llm.trace(IDS, capture=["blocks.1.mlp.expert_index", "blocks.1.mlp.router_weights"])
    order = np.argsort(-rows(weights), -1)
    np.testing.assert_array_equal(trace["blocks.1.mlp.expert_index"].array, np.take_along_axis(rows(index), order, -1))
    np.testing.assert_allclose(trace["blocks.1.mlp.router_weights"].array, np.take_along_axis(rows(weights), order, -1))


@pytest.mark.parametrize("kind", ["deepseek_v2", "deepseek_v3"])
def test_groups_that_experts_are_chosen_from(kind):
    told = {"topk_method": "group_limited_greedy"} if kind == "deepseek_v2" else {}
    model = tiny(
        kind, n_group=4, topk_group=2, n_routed_experts=16, num_local_experts=16, num_experts_per_tok=3, **told
    )
    llm, found = opened(model)
    record = found.spec.blocks[1].branch("mlp").module
    assert isinstance(record, Moe)
    assert record.groups == Groups(4, 2, 1 if kind == "deepseek_v2" else 2)
    (_, index, _), _ = once(model, "model.layers.1.mlp.experts")
    mine = llm.trace(IDS, capture=["blocks.1.mlp.expert_index"])["blocks.1.mlp.expert_index"].array
    np.testing.assert_array_equal(np.sort(mine, -1), np.sort(rows(index), -1))
    assert {error.status for error in llm.verify(IDS)} <= {"holds", "unchecked"}


def test_a_factor_on_the_experts_sum_goes_into_their_weights():
    model = tiny("laguna", moe_routed_scaling_factor=2.5)
    llm, found = opened(model)
    record = found.spec.blocks[1].branch("mlp").module
    assert isinstance(record, Moe)
    assert record.scale == 2.5
    assert "blocks.1.mlp.router_weights" not in found.places
    trace = llm.trace(IDS, capture=["blocks.1.mlp.*"], max_bytes=None)
    _, made = once(model, "model.layers.1.mlp.experts")
    _, shared = once(model, "model.layers.1.mlp.shared_experts")
    np.testing.assert_allclose(trace["blocks.1.mlp.out"].array, 2.5 * rows(made) + rows(shared), rtol=1e-5, atol=1e-6)
    assert {error.status for error in llm.verify(IDS)} <= {"holds", "unchecked"}


def test_weights_that_multiply_what_experts_read():
    model = tiny("llama4_text")
    llm, found = opened(model)
    record = found.spec.blocks[1].branch("mlp").module
    assert isinstance(record, Moe)
    assert (record.weighs, record.scoring) == ("inputs", "sigmoid")
    trace = llm.trace(IDS, capture="blocks.1.mlp.*", max_bytes=None)
    (entering,), _ = once(model, "model.layers.1.feed_forward.experts")
    index = trace["blocks.1.mlp.expert_index"].array
    every = entering.view(4, len(IDS), -1).transpose(0, 1).numpy()
    chosen = np.take_along_axis(every, index[..., None], 1)
    np.testing.assert_array_equal(trace["blocks.1.mlp.expert_in"].array, chosen)
    scores, _ = once(model, "model.layers.1.feed_forward.router")[1]
    np.testing.assert_array_equal(
        trace["blocks.1.mlp.router_weights"].array, np.take_along_axis(rows(scores), index, -1)
    )
    made, _ = once(model, "model.layers.1.feed_forward")[1]
    np.testing.assert_array_equal(trace["blocks.1.mlp.out"].array, rows(made))
    held = [error for error in llm.verify(IDS) if ".mlp." in error.site]
    assert {error.status for error in held} == {"holds"}


def test_an_activation_with_learned_numbers():
    model = tiny("apertus")
    llm, found = opened(model)
    assert found.spec.blocks[1].branch("mlp").module == Mlp(96, "xielu")
    act = model.model.layers[1].mlp.act_fn
    expected = {
        "alpha_p": torch.nn.functional.softplus(act.alpha_p), "alpha_n": act.beta + torch.nn.functional.softplus(act.alpha_n),
        "beta": act.beta, "eps": act.eps,
    }  # fmt: skip
    for name, number in expected.items():
        np.testing.assert_array_equal(found.weights[f"blocks.1.mlp.{name}"].read(), number.reshape(1).numpy())
    trace = llm.trace(IDS, capture="blocks.1.mlp.post")
    _, made = once(model, "model.layers.1.mlp.act_fn")
    np.testing.assert_array_equal(trace["blocks.1.mlp.post"].array, rows(made))
    assert {error.status for error in llm.verify(IDS)} == {"holds"}


def test_a_norm_before_the_last_matrix():
    model = tiny("bitnet")
    llm, found = opened(model)
    norm = model.model.layers[1].mlp.ffn_sub_norm
    inner = found.spec.blocks[1].branch("mlp").module.inner_norm
    assert (inner.eps, inner.over, inner.centred) == (norm.variance_epsilon, "d_mlp", False)
    np.testing.assert_array_equal(found.weights["blocks.1.mlp.inner_norm.w"].read(), norm.weight.numpy())
    trace = llm.trace(IDS, capture="blocks.1.mlp.post")
    _, made = once(model, "model.layers.1.mlp.ffn_sub_norm")
    np.testing.assert_array_equal(trace["blocks.1.mlp.post"].array, rows(made))
    assert {error.status for error in llm.verify(IDS)} == {"holds"}


def test_a_state_space_mixer_is_no_mlp_and_says_so():
    _, found = opened(tiny("mamba2"))
    assert all(isinstance(branch.module, Mixer) for block in found.spec.blocks for branch in block.branches)
    assert all("channels and its last reads" in note for note in found.notes)
