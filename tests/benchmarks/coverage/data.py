"""What rules do not make of a type: fields of its config, and why a type cannot be built tiny."""

from __future__ import annotations

from typing import Any

DATA: dict[str, dict[str, Any]] = {
    "codegen": {"rotary_dim": 8},
    "cohere_compass_text": {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("full_attention", "sliding_attention")
        }
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 2.0},
        "ffn_config": {"hidden_size": 64, "ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "num_key_value_heads": 2},
    "gptj": {"rotary_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "mamba2": {"num_heads": 4, "head_dim": 32},
    "reformer": {"is_decoder": True},
    "zaya": {"num_experts_per_tok": 1},
}
"""Type to fields that go before the rules'."""
UNBUILT: dict[str, str] = {}
"""Type to why no tiny model of it can be made."""
