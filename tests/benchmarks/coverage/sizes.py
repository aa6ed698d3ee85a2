"""How small a tiny model is, by the names that configs give their sizes."""

from __future__ import annotations

LAYERS = 2
"""Where all are of one kind."""
WIDTH, HEADS, KEYS, HEAD, INNER, EXPERT, VOCABULARY, CONTEXT = 64, 4, 2, 16, 96, 32, 128, 128

DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers")
"""Fields that count layers."""
_NAMES = (
    (LAYERS, " ".join(DEPTHS)),
    (WIDTH, "hidden_size n_embd d_model dim embed_dim embedding_size emb_dim lru_width word_embed_proj_dim lstm_width token_dim"),
    (INNER, """intermediate_size ffn_dim n_inner ffn_hidden_size d_inner dff inner_dim mlp_hidden_size decoder_ffn_dim encoder_ffn_dim
        intermediate_size_mlp dense_intermediate_size prefix_dense_intermediate_size"""),
    (EXPERT, """shared_expert_intermediate_size moe_intermediate_size shared_intermediate_size expert_ffn_hidden_size moe_ffn_hidden_size
        moe_shared_expert_intermediate_size moe_latent_size"""),
    (HEADS, """num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads swa_num_attention_heads
        linear_num_value_heads mamba_n_heads mamba_num_heads mamba_d_conv conv_kernel num_experts num_local_experts n_routed_experts
        moe_num_experts index_topk sliding_window attention_window_size mamba_dt_rank time_step_rank linear_num_heads kda_num_heads window_size"""),
    (KEYS, """num_key_value_heads num_kv_heads swa_num_key_value_heads num_global_key_value_heads linear_num_key_heads index_n_heads
        num_experts_per_tok num_experts_per_token moe_topk moe_k top_k_experts mamba_expand expand"""),
    (HEAD, """head_dim kv_channels attention_head_dim attention_head_size swa_head_dim global_head_dim swa_v_head_dim v_head_dim qk_nope_head_dim
        kv_lora_rank index_head_dim linear_key_head_dim linear_value_head_dim linear_head_dim o_lora_rank"""),
    (8, """qk_rope_head_dim rotary_dim hidden_size_per_layer_input laurel_rank mamba_d_state state_size ssm_state_size mamba_chunk_size chunk_size
        swa_rotary_dim"""),
    (24, "q_lora_rank qk_head_dim"),
    (32, "mamba_d_head mamba_head_dim"),
    (1, "mamba_n_groups mamba_ngroups n_groups n_group topk_group first_k_dense_replace"),
    (VOCABULARY, "vocab_size vocab_size_per_layer_input"),
    (CONTEXT, "n_positions n_ctx max_seq_len"),
    (4096, "max_position_embeddings"),
    (2 * WIDTH, "mamba_d_ssm"),
)  # fmt: skip
SIZES = {name: size for size, names in _NAMES for name in names.split()}
"""A config's field to its size."""
IDS = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1}
"""Tokens that have to stand in the vocabulary."""
