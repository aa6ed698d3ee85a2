"""A weight that is changed in the running model is found: the first site that is violated is the one that reads it."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

TOKENS = [5, 17, 3, 88, 41, 41, 9, 60, 2, 33, 5, 17]
FIRST = {
    "llama": {
        "input_layernorm": "ln1.out", "q_proj": "attn.q", "k_proj": "attn.k", "v_proj": "attn.v", "o_proj": "attn.out",
        "post_attention_layernorm": "ln2.out", "gate_proj": "mlp.pre", "up_proj": "mlp.pre_linear", "down_proj": "mlp.out",
    },
    "gpt2": {
        "ln_1": "ln1.out", "attn.c_attn": "attn.q", "attn.c_proj": "attn.out", "ln_2": "ln2.out", "mlp.c_fc": "mlp.pre",
        "mlp.c_proj": "mlp.out",
    },
    "qwen2_moe": {"mlp.gate": "mlp.router", "mlp.shared_expert.down_proj": "mlp.shared_out", "o_proj": "attn.out"},
    "gemma2": {"post_attention_layernorm": "attn_post.out", "post_feedforward_layernorm": "mlp_post.out"},
    "qwen3": {"q_norm": "attn.q_norm.out", "k_norm": "attn.k_norm.out"},
    "gpt_oss": {"sinks": "attn.pattern", "mlp.router": "mlp.router", "mlp.experts.down_proj": "mlp.out"},
}  # fmt: skip
"""Native module to the site of its layer that should be named first; by hand."""


@pytest.mark.parametrize("family", FIRST)
def test_the_first_violated_site_is_the_one_that_reads_the_changed_weight(opened, family):
    model = opened(family)
    torch.manual_seed(1)
    tried = set()
    for name, weight in model.session.model.named_parameters():
        native = next(
            (native for native in FIRST[family] if f".1.{native}" in name or (".1." in name and f".{native}" in name)),
            None,
        )
        if native is None:
            continue
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.mul_(1 + 0.02 * torch.randn_like(weight))
        violated = [error.site for error in model.trace(TOKENS).verify() if error.status != "holds"]
        with torch.no_grad():
            weight.copy_(kept)
        assert violated and violated[0] == f"blocks.1.{FIRST[family][native]}", (name, violated[:3])
        tried.add(native)
    assert tried == set(FIRST[family])
    assert all(error.status == "holds" for error in model.trace(TOKENS).verify())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_wrong_rotary_base_in_the_runtime_is_found_where_it_turns(opened, attention):
    model = opened("llama", attention=attention)
    model.session.model.model.rotary_emb.inv_freq.mul_(0.9)
    violated = {error.site for error in model.trace(TOKENS).verify() if error.status != "holds"}
    assert violated == {f"blocks.{layer}.attn.{site}" for layer in range(3) for site in ("rot_q", "rot_k")}


def test_a_wrong_scale_in_the_runtime_is_found_in_the_scores_or_in_what_they_mix(opened):
    for attention, site in (("eager", "scores"), ("sdpa", "z")):
        model = opened("llama", attention=attention)
        model.session.model.model.layers[1].self_attn.scaling *= 1.1
        violated = [error for error in model.trace(TOKENS).verify() if error.status != "holds"]
        assert [error.site for error in violated] == [f"blocks.1.attn.{site}"] and np.isfinite(
            violated[0].relative_error
        )
