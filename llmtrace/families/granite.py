"""Granite: Llama with four multipliers, dense or with experts that a softmax over the chosen ones weighs."""

from __future__ import annotations

from attrs import evolve

from llmtrace.families.blocks import sequential
from llmtrace.families.config import Config
from llmtrace.families.llama import COMMON
from llmtrace.families.moe import BASE, LOCAL, expert_of
from llmtrace.families.native import Family, Native
from llmtrace.families.parts import alike, attention, gated, model, rms
from llmtrace.families.rows import AT, LLAMA, Rows
from llmtrace.spec import Branch, Embedding, ModelSpec, Moe, Shared, Unembedding


def granite(c: Config) -> ModelSpec:
    """Four multipliers."""
    a = evolve(attention(c), scale=c.attention_multiplier)
    block = sequential(a, gated(c), rms(c), multiplier=c.residual_multiplier)
    return model(
        c, alike(c, block), rms(c), embed=Embedding(c.embedding_multiplier), unembed=Unembedding(1 / c.logits_scaling)
    )


def granitemoe(c: Config) -> ModelSpec:
    """Granite's multipliers; a softmax over the chosen experts only."""
    expert = expert_of(c, c.intermediate_size)
    experts = Moe(c.num_experts, c.num_experts_per_tok, expert, scoring="topk_softmax")
    a = evolve(attention(c), scale=c.attention_multiplier)
    block = sequential(a, experts, rms(c), multiplier=c.residual_multiplier)
    return model(
        c, alike(c, block), rms(c), embed=Embedding(c.embedding_multiplier), unembed=Unembedding(1 / c.logits_scaling)
    )


def granitemoeshared(c: Config) -> ModelSpec:
    """Granite's mixture with an expert that every token takes."""
    if not c.shared_intermediate_size:
        return granitemoe(c)
    shared = Shared(expert_of(c, c.shared_intermediate_size))
    spec = granitemoe(c)
    blocks = [
        evolve(block, branches=tuple(_sharing(branch, shared) for branch in block.branches)) for block in spec.blocks
    ]
    return evolve(spec, blocks=tuple(blocks))


def _sharing(branch: Branch, shared: Shared) -> Branch:
    return evolve(branch, module=evolve(branch.module, shared=shared)) if isinstance(branch.module, Moe) else branch


GRANITE: Rows = {
    "blocks.L.mlp.W_router": Native(AT + "block_sparse_moe.router.layer.weight", "expert d_model"),
    "blocks.L.mlp.W_gate": Native(AT + "block_sparse_moe.input_linear.weight", "expert (d_mlp|d_mlp) d_model", 0),
    "blocks.L.mlp.W_in": Native(AT + "block_sparse_moe.input_linear.weight", "expert (d_mlp|d_mlp) d_model", 1),
    "blocks.L.mlp.W_out": Native(AT + "block_sparse_moe.output_linear.weight", "expert d_model d_mlp"),
}
GRANITE_SHARED: Rows = {
    "blocks.L.mlp.shared.W_gate": Native(AT + "shared_mlp.input_linear.weight", "(d_shared|d_shared) d_model", 0),
    "blocks.L.mlp.shared.W_in": Native(AT + "shared_mlp.input_linear.weight", "(d_shared|d_shared) d_model", 1),
    "blocks.L.mlp.shared.W_out": Native(AT + "shared_mlp.output_linear.weight", "d_model d_shared"),
}
MULTIPLIERS = {
    "embedding_multiplier": 1.0,
    "logits_scaling": 1.0,
    "residual_multiplier": 1.0,
    "attention_multiplier": 1.0,
}
GRANITES = COMMON | MULTIPLIERS | {"num_experts": 8, "num_experts_per_tok": 2}
FAMILIES: dict[str, Family] = {
    "granite": Family(granite, LLAMA, defaults=COMMON | MULTIPLIERS),
    "granitemoe": Family(
        granitemoe,
        BASE | GRANITE,
        defaults=GRANITES,
        spellings=LOCAL,
    ),
    "granitemoeshared": Family(
        granitemoeshared,
        BASE | GRANITE | GRANITE_SHARED,
        defaults=GRANITES | {"shared_intermediate_size": 0},
        spellings=LOCAL,
    ),
}
