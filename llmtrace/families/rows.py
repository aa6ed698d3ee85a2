"""Rows that families share: the tensor names of Llama and its kin, and helpers for fused and biased projections."""

from __future__ import annotations

import re

from attrs import evolve

from llmtrace.families.native import Native

Rows = dict[str, Native]

AT = "model.layers.L."
STREAM: Rows = {
    "embed.W_E": Native("model.embed_tokens.weight", "vocab d_model"),
    "ln_final.w": Native("model.norm.weight", "d_model"),
    "ln_final.b": Native("model.norm.bias", "d_model"),
    "unembed.W_U": Native("lm_head.weight", "vocab d_model"),
    "unembed.b_U": Native("lm_head.bias", "vocab"),
}
AXES = {
    "W_Q": "(head d_head) d_model", "W_K": "(kv_head d_head) d_model", "W_V": "(kv_head d_value) d_model", "W_O": "d_model (head d_value)",
    "b_Q": "(head d_head)", "b_K": "(kv_head d_head)", "b_V": "(kv_head d_value)", "b_O": "d_model",
    "W_gate": "d_mlp d_model", "W_in": "d_mlp d_model", "W_out": "d_model d_mlp", "b_gate": "d_mlp", "b_in": "d_mlp", "b_out": "d_model",
}  # fmt: skip
"""Axes of a linear module's weight and bias, as torch stores them: outputs first."""
PIECES = {"Q": ("head", "d_head"), "K": ("kv_head", "d_head"), "V": ("kv_head", "d_value")}


def linear(at: str, native: dict[str, str], module: str) -> Rows:
    """Weight and bias of linear modules: `{"Q": "q_proj"}` in `at`, as `W_Q` and `b_Q` of the part `module`."""
    return {
        f"blocks.L.{module}.{letter}_{which}": Native(f"{at}{name}.{kind}", AXES[f"{letter}_{which}"])
        for which, name in native.items()
        for letter, kind in (("W", "weight"), ("b", "bias"))
    }


def norms(native: dict[str, str], axes: str = "d_model") -> Rows:
    """Weight and bias of norms, by part."""
    return {
        f"{part}.{letter}": Native(f"{name}.{kind}", axes)
        for part, name in native.items()
        for letter, kind in (("w", "weight"), ("b", "bias"))
    }


def fused(native: str, axes: dict[str, str], *, order: str = "QKV", weight: str = "{} d_model") -> Rows:
    """q, k and v as pieces of one tensor and its bias: `axes` of the fused axis by letter, the pieces in `order`."""
    rows = {}
    for letter, own in axes.items():
        rows[f"blocks.L.attn.W_{letter}"] = Native(native + ".weight", weight.format(own), order.index(letter))
        rows[f"blocks.L.attn.b_{letter}"] = Native(native + ".bias", own, order.index(letter))
    return rows


def each(axes: str) -> dict[str, str]:
    """One pattern of axes for q, k and v: `{h}` and `{d}` are the piece's own head and channel axes."""
    return {letter: axes.format(h=head, d=width) for letter, (head, width) in PIECES.items()}


def less_one(rows: Rows) -> Rows:
    """Norm weights stored less one (Gemma)."""
    return {name: evolve(row, plus=1.0) if name.endswith(".w") else row for name, row in rows.items()}


def conv1d(rows: Rows) -> Rows:
    """Matrices stored inputs first (GPT-2's `Conv1D`)."""
    return {name: evolve(row, axes=_swapped(row.axes)) if ".W_" in name else row for name, row in rows.items()}


def _swapped(axes: str) -> str:
    return " ".join(reversed(re.findall(r"\([^)]*\)|\S+", axes)))


SLOTS = each("(head|kv_head|kv_head {d})")
"""q's heads, then k's, then v's."""
THIRDS = each("({h} 1|1|1 {d})")
"""Head by head: its q, its k, its v."""
ATTENTION: Rows = linear(AT + "self_attn.", {"Q": "q_proj", "K": "k_proj", "V": "v_proj", "O": "o_proj"}, "attn")
MLP: Rows = linear(AT + "mlp.", {"gate": "gate_proj", "in": "up_proj", "out": "down_proj"}, "mlp")
PRE_NORMS: Rows = norms({"blocks.L.ln1": AT + "input_layernorm", "blocks.L.ln2": AT + "post_attention_layernorm"})
POST_NORMS: Rows = norms(
    {"blocks.L.attn_post": AT + "post_attention_layernorm", "blocks.L.mlp_post": AT + "post_feedforward_layernorm"}
)
SANDWICH: Rows = PRE_NORMS | POST_NORMS | norms({"blocks.L.ln2": AT + "pre_feedforward_layernorm"})
QK_NORMS = {"blocks.L.attn.q_norm": AT + "self_attn.q_norm", "blocks.L.attn.k_norm": AT + "self_attn.k_norm"}
HEAD_NORMS: Rows = norms(QK_NORMS, "d_head")
WHOLE_NORMS: Rows = {
    "blocks.L.attn.q_norm.w": Native(AT + "self_attn.q_norm.weight", "(head d_head)"),
    "blocks.L.attn.k_norm.w": Native(AT + "self_attn.k_norm.weight", "(kv_head d_head)"),
}
GATE_UP: Rows = {
    f"blocks.L.mlp.{name}": Native(AT + "mlp.gate_up_proj.weight", "(d_mlp|d_mlp) d_model", piece)
    for piece, name in enumerate(("W_gate", "W_in"))
}
LLAMA: Rows = STREAM | PRE_NORMS | ATTENTION | MLP
