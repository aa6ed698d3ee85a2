"""Faults of a config: a key that a converter, a merge or a hand got wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.comparison.faults.fault import Fault, Tensors

FIRST = "blocks.0"
TURNED = (f"{FIRST}.attn.rot_q",)
SCORED = (f"{FIRST}.attn.scores", f"{FIRST}.attn.pattern", f"{FIRST}.attn.z")
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}


def put(**keys: Any) -> Callable[[dict[str, Any]], None]:
    """Set keys that are there."""

    def change(config: dict[str, Any]) -> None:
        assert set(keys) <= set(config), sorted(set(keys) - set(config))
        config.update(keys)

    return change


def rope(**keys: Any) -> Callable[[dict[str, Any]], None]:
    """Set keys of the rotary parameters."""

    def change(config: dict[str, Any]) -> None:
        config["rope_parameters"] = config["rope_parameters"] | keys

    return change


def _untie(tensors: Tensors) -> None:
    del tensors["lm_head.weight"]


def _tie(tensors: Tensors) -> None:
    """A head of its own, where the checkpoint shares the embedding's."""
    tensors["lm_head.weight"] = np.roll(tensors["model.embed_tokens.weight"], 7, 1)


ROWS = (
    Fault("rotary base", "llama", TURNED, ("theta 500,000", "10,000"), config=rope(rope_theta=500000.0)),
    Fault("rotary base of no published model", "qwen3", TURNED, ("theta 23,456",), config=rope(rope_theta=23456.0)),
    Fault("rotary scaling added (linear)", "llama", TURNED, ("scaling", "linear"), config=put(rope_parameters=LINEAR)),
    Fault("rotary scaling added (llama3)", "llama", TURNED, ("rotary scaling",), config=put(rope_parameters=LLAMA3)),
    Fault("rotary of twice as many channels", "gpt_neox", TURNED, ("width",), config=rope(partial_rotary_factor=0.5)),
    Fault("epsilon of norms", "llama", (f"{FIRST}.ln1.out",), ("eps 1e-05", "1e-06"), config=put(rms_norm_eps=1e-5)),
    Fault("epsilon of norms, large", "mixtral", (f"{FIRST}.ln1.out",), ("eps 0.01",), config=put(rms_norm_eps=1e-2)),
    Fault("epsilon of layer norms", "gpt2", (f"{FIRST}.ln1.out",), ("eps 1e-12",), config=put(layer_norm_epsilon=1e-12)),
    Fault("activation", "llama", (f"{FIRST}.mlp.post",), ("act gelu",), config=put(hidden_act="gelu")),
    Fault("GELU by erf, not tanh", "gemma2", (f"{FIRST}.mlp.post",), ("act gelu ", "gelu_tanh"), config=put(hidden_activation="gelu")),
    Fault("GELU by erf, not tanh, in GPT-2", "gpt2", (f"{FIRST}.mlp.post",), ("act gelu ", "gelu_tanh"), config=put(activation_function="gelu")),
    Fault("quick GELU", "gpt2", (f"{FIRST}.mlp.post",), ("quick_gelu",), config=put(activation_function="quick_gelu")),
    Fault("head tied by mistake", "llama", ("logits",), ("embed",), config=put(tie_word_embeddings=True), tensors=_untie),
    Fault("window missing", "mistral", SCORED, ("window none instead of 5",), config=put(sliding_window=None)),
    Fault("window longer by one", "mistral", SCORED, ("window 6 instead of 5",), config=put(sliding_window=6)),
    Fault("window shorter by one", "gemma2", SCORED, ("window 4 instead of 5",), config=put(sliding_window=4)),
    Fault("window in the wrong blocks", "gemma2", SCORED, ("window none instead of 5",),
          config=put(layer_types=["full_attention", "sliding_attention", "full_attention"])),
    Fault("attention scale", "gemma2", SCORED, ("scale",), config=put(query_pre_attn_scalar=16)),
    Fault("softcap of scores missing", "gemma2", SCORED, ("softcap none",), config=put(attn_logit_softcapping=None)),
    Fault("softcap of scores of another size", "gemma2", SCORED, ("softcap 30",), config=put(attn_logit_softcapping=30.0)),
    Fault("softcap of logits missing", "gemma2", ("logits",), ("softcap none",), config=put(final_logit_softcapping=None)),
    Fault("residual multiplier missing", "granite", (f"{FIRST}.attn_out",), ("multiplie",), config=put(residual_multiplier=1.0)),
    Fault("embedding multiplier missing", "granite", ("embed",), ("scale 1 instead of 3",), config=put(embedding_multiplier=1.0)),
    Fault("factor of logits missing", "granite", ("logits",), ("scale 1 instead of 0.25",), config=put(logits_scaling=1.0)),
    Fault("attention multiplier missing", "granite", SCORED, ("scale",), config=put(attention_multiplier=0.25)),
    Fault("experts' weights not divided by their sum", "qwen3_moe", (f"{FIRST}.mlp.router_weights", f"{FIRST}.mlp.out"), ("renormalise no",),
          config=put(norm_topk_prob=False)),
    Fault("attention scaled by layer", "gpt2", ("blocks.1.attn.scores", "blocks.1.attn.pattern", "blocks.1.attn.z"), ("scale",),
          config=put(scale_attn_by_inverse_layer_idx=True)),
)  # fmt: skip
