"""What llama.cpp's architectures are, as data. **Architecture**: one value of `general.architecture`, and the family of transformers
that computes the same; **swa**: sliding-window attention, in llama.cpp's word.

What a config would say and a file does not is said here as llama.cpp has it in its code: it computes every GELU by the tanh form, takes no
window for the Llamas, and makes the experts' weights sum to one or not by architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

GELU = "gelu_pytorch_tanh"


@frozen
class Architecture:
    """One architecture. Keys of the file are written without the architecture's name before them."""

    family: str
    """`model_type` of the family."""
    keys: Mapping[str, str] = field(factory=dict)
    """Key of a config to the file's, where the file may say it; these come before those of all architectures."""
    says: Mapping[str, Any] = field(factory=dict)
    """What llama.cpp has in its code, in the config's terms; what the file says comes before it."""
    mixture: str = ""
    """The family, where the file counts experts."""
    permuted: bool = False
    """Rows of q and k stand so that neighbours turn together, though the family turns halves: the converter moved them."""
    period: int = 0
    """One layer in so many has no window, the last of each; 0: there are no windows."""
    window: int | None = None
    """Tokens in a window, where the file does not say."""
    may_be_none: bool = False
    """Whether a window of no tokens is none; else llama.cpp hides every token, and computes no number."""
    windowed: str = ""
    """The family, where the file says a window."""
    windowed_layers: int | None = None
    """How many layers the one model has that llama.cpp takes windows for; None: windows do not depend on it."""
    shared: str = ""
    """The family, where the file says how wide shared experts are."""
    spare: bool = False
    """Whether the last blocks may predict further tokens (`nextn_predict_layers`): they are counted, and no part of the stream."""
    swa_theta: float | None = None
    """The rotary base in windowed layers, where it is another and the file does not say."""
    swa_scaled: bool = True
    """Whether windowed layers stretch their rotary embedding as the others do."""


KEYS: Mapping[str, str] = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "num_kv_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "intermediate_size": "feed_forward_length",
    "n_inner": "feed_forward_length",
    "ffn_hidden_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "layer_norm_eps": "attention.layer_norm_epsilon",
    "layer_norm_epsilon": "attention.layer_norm_epsilon",
    "norm_epsilon": "attention.layer_norm_epsilon",
    "norm_eps": "attention.layer_norm_epsilon",
    "rope_theta": "rope.freq_base",
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "sliding_window": "attention.sliding_window",
}
"""Key of a config, in every family's spelling, to the file's."""
SAID: Mapping[str, Any] = {
    "rope_theta": 10000.0, "partial_rotary_factor": 1.0, "attention_bias": False, "mlp_bias": False, "use_bias": False, "hidden_act": "silu",
}  # fmt: skip
"""Of all architectures. Biases are then those that the file has."""
CAPS = {"attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping"}
ROUTED = {
    "n_shared_experts": "expert_shared_count", "routed_scaling_factor": "expert_weights_scale", "norm_topk_prob": "expert_weights_norm",
    "first_k_dense_replace": "leading_dense_block_count",
}  # fmt: skip
CORRECTED = {"norm_topk_prob": False, "routed_scaling_factor": 1.0, "first_k_dense_replace": 0}
"""DeepSeek's mixture with plain attention."""
GRANITE = {
    "embedding_multiplier": "embedding_scale", "residual_multiplier": "residual_scale", "attention_multiplier": "attention.scale",
    "logits_scaling": "logit_scale",
}  # fmt: skip
LLAMA = Architecture("llama", mixture="mixtral", says={"sliding_window": None}, permuted=True)
"""Whatever was converted as a Llama: Mistral, SmolLM and TinyLlama too. A window that the file may mention is not looked at."""

GRANITES = {"embedding_multiplier": 1.0, "residual_multiplier": 1.0}

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": LLAMA,
    "arcee": Architecture("arcee", says={"hidden_act": "relu2"}, permuted=True),
    "bloom": Architecture("bloom"),
    "chatglm": Architecture("glm"),
    "cohere2": Architecture("cohere2", {"logit_scale": "logit_scale"}, period=4),
    "command-r": Architecture("cohere", {"logit_scale": "logit_scale"}),
    "dots1": Architecture("dots1", ROUTED, CORRECTED | {"sliding_window": None}),
    "ernie4_5": Architecture("ernie4_5"),
    "exaone": Architecture("llama"),
    "exaone4": Architecture("exaone4", period=4, window=4096, windowed_layers=64, spare=True),
    "falcon": Architecture("falcon", says={"activation": GELU, "new_decoder_architecture": True, "alibi": False}),
    "gemma": Architecture("gemma", says={"hidden_act": GELU}),
    "gemma2": Architecture(
        "gemma2",
        CAPS,
        {"hidden_activation": GELU, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        period=2,
        window=4096,
    ),
    "gemma3": Architecture(
        "gemma3_text",
        {"final_logit_softcapping": "final_logit_softcapping"},
        {"hidden_activation": GELU, "final_logit_softcapping": None},
        period=6,
        may_be_none=True,
        swa_theta=10000.0,
        swa_scaled=False,
    ),
    "glm4": Architecture("glm4"),
    "glm4moe": Architecture("glm4_moe", ROUTED, CORRECTED | {"gating": 2}, spare=True),
    "gpt-oss": Architecture(
        "gpt_oss",
        {"intermediate_size": "expert_feed_forward_length"},
        {"swiglu_limit": 7.0, "rope_parameters": {}},
        period=2,
    ),
    "gpt2": Architecture("gpt2", says={"activation_function": GELU}),
    "gptneox": Architecture(
        "gpt_neox",
        {"use_parallel_residual": "use_parallel_residual"},
        {"hidden_act": GELU, "use_parallel_residual": True},
    ),
    "granite": Architecture("granite", GRANITE, GRANITES, permuted=True),
    "granitemoe": Architecture(
        "granitemoe",
        GRANITE | {"shared_intermediate_size": "expert_shared_feed_forward_length"},
        GRANITES,
        permuted=True,
        shared="granitemoeshared",
    ),
    "hunyuan-dense": Architecture("hunyuan_v1_dense"),
    "internlm2": Architecture("llama", permuted=True),
    "minicpm": Architecture("granite", GRANITE, permuted=True),
    "mistral3": Architecture("llama", mixture="mixtral", says={"sliding_window": None}, permuted=True),
    "mpt": Architecture("mpt"),
    "nemotron": Architecture("nemotron", says={"hidden_act": "relu2"}),
    "olmo": Architecture("olmo", {"clip_qkv": "attention.clamp_kqv"}, permuted=True),
    "olmo2": Architecture("olmo2", windowed="olmo3", period=4, may_be_none=True, swa_scaled=False),
    "olmoe": Architecture("olmoe", says={"norm_topk_prob": False}),
    "pangu-embedded": Architecture("llama"),
    "phi2": Architecture("phi", says={"hidden_act": GELU, "qk_layernorm": False}),
    "phi3": Architecture("phi3", says={"sliding_window": None}),
    "qwen2": Architecture("qwen2"),
    "qwen2moe": Architecture(
        "qwen2_moe",
        {"shared_expert_intermediate_size": "expert_shared_feed_forward_length"},
        {"norm_topk_prob": False, "qkv_bias": True},
    ),
    "qwen2vl": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
    "qwen3moe": Architecture("qwen3_moe", says={"norm_topk_prob": True}),
    "qwen3vl": Architecture("qwen3"),
    "qwen3vlmoe": Architecture("qwen3_moe", says={"norm_topk_prob": True}),
    "seed_oss": Architecture("seed_oss"),
    "smollm3": Architecture("smollm3", says={"no_rope_layer_interval": 4, "sliding_window": None}, permuted=True),
    "stablelm": Architecture("stablelm"),
    "starcoder": Architecture("gpt_bigcode", says={"activation_function": GELU, "multi_query": True}),
    "starcoder2": Architecture("starcoder2", says={"hidden_act": GELU, "sliding_window": None}),
    "xverse": Architecture("llama", permuted=True),
}
"""By what `general.architecture` says."""
