"""Where a GGUF file keeps each weight. Its names are the same in all architectures; which of them a file uses, the file says.

Matrices stand outputs first, q, k and v below one another where they are one tensor, the experts' as one tensor of three axes.
Norm weights are as multiplied: a converter has added Gemma's one.
"""

from __future__ import annotations

from collections.abc import Container

from attrs import evolve

from llmtrace.families.native import Family, Native
from llmtrace.families.rows import SLOTS, fused, linear, norms
from llmtrace.spec import Attention, GatedMlp, ModelSpec, Moe, Norm

Rows = dict[str, Native]
B = "blk.L."

ENDS: Rows = {
    "embed.W_E": Native("token_embd.weight", "vocab d_model"),
    "pos_embed.W_pos": Native("position_embd.weight", "position d_model"),
    "unembed.W_U": Native("output.weight", "vocab d_model"),
    "unembed.b_U": Native("output.bias", "vocab"),
} | norms({"embed": "token_embd_norm", "ln_final": "output_norm"})
ATTENTION: Rows = (
    linear(B, {"Q": "attn_q", "K": "attn_k", "V": "attn_v", "O": "attn_output"}, "attn")
    | norms({"blocks.L.attn_post": B + "post_attention_norm", "blocks.L.mlp_post": B + "post_ffw_norm"})
    | {"blocks.L.attn.sinks": Native(B + "attn_sinks.weight", "head")}
)
FUSED: Rows = fused(B + "attn_qkv", SLOTS)
MLP: Rows = linear(B, {"gate": "ffn_gate", "in": "ffn_up", "out": "ffn_down"}, "mlp")
GATE_UP: Rows = {
    f"blocks.L.mlp.{name}": Native(B + "ffn_up.weight", "(d_mlp|d_mlp) d_model", piece)
    for piece, name in enumerate(("W_gate", "W_in"))
}
"""A gated MLP whose halves are one tensor, the gate first."""
EXPERTS: Rows = {
    "blocks.L.mlp.W_router": Native(B + "ffn_gate_inp.weight", "expert d_model"),
    "blocks.L.mlp.b_router": Native(B + "ffn_gate_inp.bias", "expert"),
    "blocks.L.mlp.b_correction": Native(B + "exp_probs_b.bias", "expert"),
    "blocks.L.mlp.W_gate": Native(B + "ffn_gate_exps.weight", "expert d_mlp d_model"),
    "blocks.L.mlp.W_in": Native(B + "ffn_up_exps.weight", "expert d_mlp d_model"),
    "blocks.L.mlp.W_out": Native(B + "ffn_down_exps.weight", "expert d_model d_mlp"),
    "blocks.L.mlp.b_gate": Native(B + "ffn_gate_exps.bias", "expert d_mlp"),
    "blocks.L.mlp.b_in": Native(B + "ffn_up_exps.bias", "expert d_mlp"),
    "blocks.L.mlp.b_out": Native(B + "ffn_down_exps.bias", "expert d_model"),
    "blocks.L.mlp.shared.W_gate": Native(B + "ffn_gate_shexp.weight", "d_shared d_model"),
    "blocks.L.mlp.shared.W_in": Native(B + "ffn_up_shexp.weight", "d_shared d_model"),
    "blocks.L.mlp.shared.W_out": Native(B + "ffn_down_shexp.weight", "d_model d_shared"),
    "blocks.L.mlp.shared.W_mix": Native(B + "ffn_gate_inp_shexp.weight", "d_model"),
}
UNREAD = (r"^rope_(freqs|factors_(long|short))\.weight$",)
"""Tensors that are no weights: the metadata's business."""


def table(spec: ModelSpec, there: Container[str]) -> Rows:
    """Schema weight to its tensor, for a file that has the tensors `there`."""
    rows = ENDS | _norms(spec, there) | ATTENTION | _head_norms(spec)
    if "blk.0.attn_qkv.weight" in there:
        rows |= FUSED
    modules = [block.branch("mlp") for block in spec.blocks]
    routed = [branch is not None and isinstance(branch.module, Moe) for branch in modules]
    gated = any(branch is not None and isinstance(branch.module, GatedMlp) for branch in modules)
    dense = MLP | GATE_UP if gated and "blk.0.ffn_up.weight" in there and "blk.0.ffn_gate.weight" not in there else MLP
    if not any(routed):
        return rows | dense
    for layer, moe in enumerate(routed):
        if not moe:
            rows |= {name.replace(".L.", f".{layer}."): row for name, row in dense.items()}
    return rows | EXPERTS


def stored_in(row: Family, spec: ModelSpec, there: Container[str], blocks: int) -> Family:
    """The family with its weights where a GGUF file of so many `blocks` has them; those beyond the spec's are read by nobody."""
    spare = tuple(rf"^blk\.{layer}\." for layer in range(len(spec.blocks), blocks))
    return evolve(row, weights=table(spec, there), prefix="", renames=(), unread=UNREAD + spare, variant=None)


def _norms(spec: ModelSpec, there: Container[str]) -> Rows:
    """The norms before the branches, which two architectures call otherwise."""
    if "blk.0.attn_norm_2.weight" in there:  # Falcon 40B: attention has the second norm
        return norms({"blocks.L.ln1": B + "attn_norm_2", "blocks.L.ln2": B + "attn_norm"})
    sandwich = any(branch.post for block in spec.blocks for branch in block.branches)
    usual = sandwich or "blk.0.ffn_norm.weight" in there or "blk.0.post_attention_norm.weight" not in there
    return norms(
        {"blocks.L.ln1": B + "attn_norm", "blocks.L.ln2": B + ("ffn_norm" if usual else "post_attention_norm")}
    )


def _head_norms(spec: ModelSpec) -> Rows:
    """Norms of q and k: one weight for every head, one for all of them, or one over their whole width."""
    found: Rows = {}
    attentions = [block.attention for block in spec.blocks]
    attention = next((one for one in attentions if isinstance(one, Attention) and one.q_norm and one.k_norm), None)
    for which, norm in (("q", attention and attention.q_norm), ("k", attention and attention.k_norm)):
        if isinstance(norm, Norm):
            axes = f"({norm.over})" if " " in norm.over else f"{norm.each} {norm.over}".strip()
            found |= norms({f"blocks.L.attn.{which}_norm": f"{B}attn_{which}_norm"}, axes)
    return found
