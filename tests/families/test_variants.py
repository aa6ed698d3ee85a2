"""What a config may switch within a family, each against transformers."""

from __future__ import annotations

import pytest

PROMPT = [5, 17, 3, 88, 41, 41, 9, 60, 2, 33, 5, 17]
SLIDING, FULL = "sliding_attention", "full_attention"

VARIANTS = {
    "llama, one key/value head": ("llama", {"num_key_value_heads": 1}),
    "llama, as many key/value heads as heads": ("llama", {"num_key_value_heads": 4}),
    "llama, no biases": ("llama", {"attention_bias": False, "mlp_bias": False}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, another activation": ("llama", {"hidden_act": "gelu_new"}),
    "llama, one layer": ("llama", {"num_hidden_layers": 1}),
    "mistral, a window longer than the prompt": ("mistral", {"sliding_window": 50}),
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "mistral, a window of one": ("mistral", {"sliding_window": 1}),
    "ministral, windows in all layers": ("ministral", {"layer_types": None}),
    "qwen2, windows off": ("qwen2", {"use_sliding_window": False}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3, windows by layer": (
        "qwen3",
        {"use_sliding_window": True, "sliding_window": 5, "layer_types": [FULL, SLIDING, FULL]},
    ),
    "qwen3, no bias": ("qwen3", {"attention_bias": False}),
    "phi3, tied": ("phi3", {"tie_word_embeddings": True, "sliding_window": None}),
    "smollm3, rotary given by layer": ("smollm3", {"no_rope_layers": [0, 1, 1], "use_sliding_window": False}),
    "granite, untied without biases": (
        "granite",
        {"attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False},
    ),
    "helium, no bias": ("helium", {"attention_bias": False}),
    "ernie4_5, no bias": ("ernie4_5", {"use_bias": False}),
    "seed_oss, a bias after attention only": ("seed_oss", {"attention_bias": False, "attention_out_bias": True}),
    "gemma, untied": ("gemma", {"tie_word_embeddings": False}),
    "gemma, its old name for the tanh form": ("gemma", {"hidden_act": "gelu"}),
    "gemma2, no softcaps": ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
    "gemma2, windows elsewhere": ("gemma2", {"layer_types": [FULL, FULL, SLIDING]}),
    "gemma2, biases": ("gemma2", {"attention_bias": True}),
    "gemma3, windows elsewhere": ("gemma3_text", {"layer_types": [FULL, SLIDING, FULL]}),
    "gemma3, a final softcap": ("gemma3_text", {"final_logit_softcapping": 3.0}),
    "olmo, no clip": ("olmo", {"clip_qkv": None, "attention_bias": False}),
    "olmo2, tied": ("olmo2", {"tie_word_embeddings": True, "attention_bias": False}),
    "olmo3, its own windows": ("olmo3", {"layer_types": None, "num_hidden_layers": 5}),
    "exaone4, no windows": ("exaone4", {"sliding_window": None, "layer_types": [FULL] * 3}),
    "gpt2, untied, wider": ("gpt2", {"tie_word_embeddings": False, "n_inner": 96}),
    "gpt2, unscaled": ("gpt2", {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": False}),
    "gpt2, exact gelu": ("gpt2", {"activation_function": "gelu"}),
    "gpt_bigcode, many heads": ("gpt_bigcode", {"multi_query": False}),
    "gpt_neo, long windows": ("gpt_neo", {"window_size": 50}),
    "opt, no biases": ("opt", {"enable_bias": False}),
    "opt, untied, gelu": ("opt", {"tie_word_embeddings": False, "activation_function": "gelu"}),
    "gptj, all channels": ("gptj", {"rotary_dim": 16}),
    "gptj, tied": ("gptj", {"tie_word_embeddings": True}),
    "gpt_neox, sequential": ("gpt_neox", {"use_parallel_residual": False}),
    "gpt_neox, no attention bias": ("gpt_neox", {"attention_bias": False}),
    "gpt_neox, more rotary": (
        "gpt_neox",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}},
    ),
    "phi, no norms on q and k": ("phi", {"qk_layernorm": False}),
    "phi, less rotary": (
        "phi",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25}},
    ),
    "stablelm, parallel": ("stablelm", {"use_parallel_residual": True}),
    "stablelm, no norms, no biases": ("stablelm", {"qk_layernorm": False, "use_qkv_bias": False}),
    "starcoder2, no biases, no window": ("starcoder2", {"use_bias": False, "sliding_window": None}),
    "nemotron, no biases": ("nemotron", {"attention_bias": False, "mlp_bias": False}),
    "cohere, no norms on q and k": ("cohere", {"use_qk_norm": False, "attention_bias": False}),
    "cohere2, its own windows": ("cohere2", {"layer_types": None, "num_hidden_layers": 5}),
    "glm4, no bias, tied": ("glm4", {"attention_bias": False, "tie_word_embeddings": True}),
    "falcon, rotary": ("falcon", {"alibi": False}),
    "falcon, many heads": ("falcon", {"multi_query": False}),
    "falcon, sequential": ("falcon", {"parallel_attn": False, "alibi": False}),
    "falcon, biases": ("falcon", {"bias": True}),
    "falcon, grouped": ("falcon", {"alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon, grouped, biased": (
        "falcon",
        {"alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": True},
    ),
    "falcon, grouped behind one norm": (
        "falcon",
        {"alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
    ),
    "falcon, untied": ("falcon", {"tie_word_embeddings": False, "ffn_hidden_size": 96}),
    "bloom, twelve heads": ("bloom", {"hidden_size": 96, "n_head": 12}),
    "mpt, six heads": ("mpt", {"d_model": 96, "n_heads": 6}),
    "mpt, its own scale, no clip": ("mpt", {"attn_config": {"softmax_scale": 0.4}}),
    "mixtral, one expert": ("mixtral", {"num_experts_per_tok": 1, "sliding_window": None}),
    "mixtral, all experts": ("mixtral", {"num_experts_per_tok": 4}),
    "qwen2_moe, weights that sum to one": ("qwen2_moe", {"norm_topk_prob": True}),
    "qwen2_moe, no biases, windows": (
        "qwen2_moe",
        {"qkv_bias": False, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 3},
    ),
    "qwen2_moe, a dense layer": ("qwen2_moe", {"mlp_only_layers": [1]}),
    "qwen3_moe, every other layer dense": ("qwen3_moe", {"decoder_sparse_step": 2}),
    "qwen3_moe, weights that sum to one": ("qwen3_moe", {"norm_topk_prob": True}),
    "qwen3_moe, windows": ("qwen3_moe", {"use_sliding_window": True, "sliding_window": 5}),
    "olmoe, weights that sum to one": ("olmoe", {"norm_topk_prob": True}),
    "glm4_moe, weights that need not sum to one": (
        "glm4_moe",
        {"norm_topk_prob": False, "use_qk_norm": False, "attention_bias": False},
    ),
    "dots1, no dense layer": ("dots1", {"first_k_dense_replace": 0}),
    "granitemoeshared, nothing shared": ("granitemoeshared", {"shared_intermediate_size": 0}),
    "hunyuan, a raised base": (
        "hunyuan_v1_dense",
        {"rope_parameters": {"rope_type": "dynamic", "alpha": 50.0, "factor": 1.0, "rope_theta": 100.0}},
    ),
    "gpt_oss, no attention bias": ("gpt_oss", {"attention_bias": False}),
    "gpt_oss, a loose clamp": ("gpt_oss", {"swiglu_limit": 7.0, "num_experts_per_tok": 1}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_agrees_with_transformers(variant, disagreement):
    family, overrides = VARIANTS[variant]
    assert disagreement(family, PROMPT, **overrides) < 1e-5


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt_oss", "bloom", "gpt2", "mpt"])
@pytest.mark.parametrize("length", [1, 5, 6, 64])
def test_prompts_of_every_length_agree(family, length, disagreement):
    assert disagreement(family, [token * 7 % 97 for token in range(length)]) < 1e-5
