"""What other tools call our sites, and whether they mean the same value by it. Data: code, docs and tests read this table.

A template stands for every layer: `blocks.L.attn.z`. A **row** is one site; a **name** is what one tool calls it. TransformerLens's
names are those of `HookedTransformer` and of its bridge to transformers models; interp-engine's are its points; nnterp's are the
accessors of its standardised models. Read from their sources: TransformerLens 3 (`components/`, `model_bridge/`), interp-engine
(`points.py`, `capture.py`, `mappers.py`), nnterp 1.3 (`standardized_transformer.py`), as they stood in summer 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from attrs import frozen

from llmtrace.errors import UnknownSignalError, suggest
from llmtrace.spec import ModelSpec


@frozen
class Name:
    """One tool's name for a site."""

    name: str
    """As the other tool spells it, `L` for the layer."""
    same: bool = True
    """Whether the tool means our value by it; special cases stand in the note."""
    note: str = ""
    """How the value differs; or, of one that is the same, where its layout or a special case does."""
    also: tuple[str, ...] = ()
    """Other spellings of the name in the same tool."""
    unless: Callable[[ModelSpec], bool] = lambda spec: False
    """Of the model: whether a value that differs as a rule is ours all the same."""


@frozen
class Row:
    """A site and its names elsewhere; None where a tool has no such point."""

    site: str
    """Our name, `blocks.L.…` for every block."""
    transformer_lens: Name | None = None
    """TransformerLens's."""
    interp_engine: Name | None = None
    """interp-engine's."""
    nnterp: Name | None = None
    """nnterp's."""


def _differs(name: str, note: str) -> Name:
    return Name(name, False, note)


B = "blocks.L."
BRIDGE = "bridge only"
FLAT = "heads side by side in one axis"
MULTIPLIER = "TransformerLens's is before a residual multiplier, where a model has one"
BARE = "the embedding module's output, before a scale or norm that stands outside it"
RAW = "before the scale and the softcap"
MASKED = "on transformers models masked entries are the type's minimum instead of -inf"
DENSE = "on a mixture of experts the bridge's name means the block's own input or output"


def _norm(
    site: str, hook: str, out: Name | None, engine: Name | None = None, nnterp: Name | None = None
) -> tuple[Row, ...]:
    """The three sites of a norm. TransformerLens fires `hook_normalized` before the weight, as we do."""
    return (
        Row(f"{site}.scale", Name(f"{hook}.hook_scale")),
        Row(f"{site}.normalized", Name(f"{hook}.hook_normalized", note="before the weight, here and there")),
        Row(f"{site}.out", out, engine, nnterp),
    )


NAMES: tuple[Row, ...] = (
    Row(
        "embed",
        Name("hook_embed", note=f"the bridge's: {BARE}"),
        _differs("embeddings", BARE),
        _differs("token_embeddings", BARE),
    ),
    Row("pos_embed", Name("hook_pos_embed", also=("pos_embed.hook_out",))),
    Row(B + "resid_pre", Name(B + "hook_resid_pre", also=(B + "hook_in",)), Name("resid_pre.L"), Name("layers_input[L]")),
    *_norm(
        B + "ln1", B + "ln1", Name(B + "attn.hook_in", note=BRIDGE),
        Name("attn_in.L"), Name("attentions_input[L]"),
    ),
    Row(B + "attn.q_latent"),
    *(Row(f"{B}attn.{latent}_norm.{part}") for latent in ("q_latent", "kv_latent") for part in ("scale", "normalized", "out")),
    Row(B + "attn.kv_latent"),
    Row(B + "attn.q", Name(B + "attn.hook_q", also=(B + "attn.q.hook_out",)), Name("q_norm_in.L", note="only where q is normed")),
    *_norm(
        B + "attn.q_norm", B + "attn.q_norm", Name(B + "attn.q_norm.hook_out", note=BRIDGE), Name("q_norm_out.L"),
    ),
    Row(B + "attn.k", Name(B + "attn.hook_k", also=(B + "attn.k.hook_out",)), Name("k_norm_in.L", note="only where k is normed")),
    *_norm(
        B + "attn.k_norm", B + "attn.k_norm", Name(B + "attn.k_norm.hook_out", note=BRIDGE), Name("k_norm_out.L"),
    ),
    Row(
        B + "attn.v", Name(B + "attn.hook_v", also=(B + "attn.v.hook_out",)),
        _differs("value.L", "before a clip or norm; q, k and v where they are fused"),
    ),
    Row(B + "attn.rot_q", Name(B + "attn.hook_rot_q", note="only with rotary")),
    Row(B + "attn.rot_k", Name(B + "attn.hook_rot_k", note="only with rotary")),
    Row(
        B + "attn.scores",
        Name(
            B + "attn.hook_attn_scores",
            note=f"the bridge's is the pattern where the wrapped module does attention; {MASKED}",
        ),
        _differs("attn_scores.L", MASKED),
    ),
    Row(
        B + "attn.pattern", Name(B + "attn.hook_pattern", also=(B + "attn.hook_attention_weights",)),
        Name("attn_probs.L", note="eager attention, or recomputed from q and k"),
        Name("attention_probabilities[L]", note="eager attention only; to be enabled when the model is loaded"),
    ),
    Row(B + "attn.selected"),
    Row(B + "attn.mask"),
    Row(B + "attn.sink"),
    Row(B + "attn.kept"),
    Row(
        B + "attn.z",
        Name(B + "attn.hook_z", note="the bridge's is our attn.z_post where a gate or norm follows"),
    ),
    Row(B + "attn.gate", None, _differs("attn_gate.L", "before the activation; on some models with the queries beside it")),
    Row(B + "attn.z_post", Name(B + "attn.o.hook_in", note=BRIDGE), Name("z.L", note=FLAT)),
    Row(B + "attn.result", Name(B + "attn.hook_result", note="on request there too")),
    Row(B + "attn.out", Name(B + "attn.hook_out", note=BRIDGE), Name("attn_out.L"), Name("attentions_output[L]")),
    *_norm(B + "attn_post", B + "ln1_post", Name(B + "ln1_post.hook_out", note=BRIDGE)),
    Row(
        B + "attn_out",
        Name(B + "hook_attn_out", note=MULTIPLIER),
        Name("attn_out_post.L"),
    ),
    Row(B + "mixer_out"),
    Row(B + "resid_mid", Name(B + "hook_resid_mid"), Name("resid_mid.L")),
    *_norm(B + "ln2", B + "ln2", Name(B + "mlp.hook_in", note=BRIDGE), Name("mlp_in.L"), Name("mlps_input[L]")),
    Row(
        B + "mlp.router", _differs(B + "mlp.hook_router_scores", "what the wrapped block returns second: scores or logits"),
        Name("router_logits.L"),
    ),
    Row(B + "mlp.expert_index", Name(B + "mlp.hook_expert_indices"), Name("expert_indices.L")),
    Row(
        B + "mlp.router_weights", _differs(B + "mlp.hook_expert_weights", "the softmax over all experts, before the choice"),
        Name("expert_weights.L"),
    ),
    Row(B + "mlp.expert_in"),
    Row(B + "mlp.pre", Name(B + "mlp.hook_pre", note=DENSE), Name("mlp_pre.L", note="dense blocks only")),
    Row(B + "mlp.pre_linear", Name(B + "mlp.hook_pre_linear"), Name("mlp_pre_linear.L", note="dense blocks only")),
    Row(B + "mlp.post", Name(B + "mlp.hook_post", note=DENSE), Name("mlp_act.L", note="dense blocks only")),
    Row(B + "mlp.shared_out"),
    Row(
        B + "mlp.out", Name(B + "mlp.hook_out", note=BRIDGE), Name("mlp_out.L"),
        Name("mlps_output[L]", note="BLOOM's module adds the residual stream itself"),
    ),
    *_norm(B + "mlp_post", B + "ln2_post", Name(B + "ln2_post.hook_out", note=BRIDGE)),
    Row(
        B + "mlp_out",
        Name(B + "hook_mlp_out", note=MULTIPLIER),
        Name("mlp_out_post.L"),
    ),
    Row(B + "resid_post", Name(B + "hook_resid_post", also=(B + "hook_out",)), Name("resid_post.L"), Name("layers_output[L]")),
    *_norm(
        "ln_final", "ln_final", Name("unembed.hook_in", also=("ln_final.hook_out",)),
        Name("final_norm"), Name("ln_final.output"),
    ),
    Row("head.pre"),
    Row("head.post"),
    Row("head_norm.scale"),
    Row("head_norm.normalized"),
    Row("head_norm.out"),
    Row(
        "logits",
        Name(
            "unembed.hook_out", False, RAW, also=("hook_unembed",),
            unless=lambda spec: spec.unembed.scale == 1 and spec.unembed.softcap is None,
        ),
        _differs("lm_head", RAW), Name("logits"),
    ),
)  # fmt: skip


HOOKS = {
    spelling: row
    for row in NAMES
    if row.transformer_lens is not None
    for spelling in (row.transformer_lens.name, *row.transformer_lens.also)
}
"""TransformerLens's names and their rows, `L` for the layer."""
ASIDE = frozenset({"hook_in", "hook_out", "hook_hidden_states", "hook_cos", "hook_sin"})
"""How the other hooks of TransformerLens's bridge end, where they have no row: what a module of transformers read or put out, rotary tables."""


def from_transformer_lens(pattern: str, spec: ModelSpec | None = None) -> str:
    """Our pattern for a TransformerLens hook name; the layer may be a number or a pattern, which is kept.

    Raises `UnknownSignalError` where the two tools mean different values (in the model, where `spec` says which), or there is no such
    hook.

    >>> from_transformer_lens("blocks.0.attn.hook_attn_scores")
    'blocks.0.attn.scores'
    """
    found, general = _general(pattern)
    row = HOOKS.get(general)
    if row is None or row.transformer_lens is None:
        near = suggest(pattern, HOOKS) or suggest(general, HOOKS)
        raise UnknownSignalError(
            f"TransformerLens's {pattern!r} has no site here; `llmtrace info MODEL` lists the sites.{near}"
        )
    if not (row.transformer_lens.same or (spec is not None and row.transformer_lens.unless(spec))):
        raise UnknownSignalError(
            f"TransformerLens's {pattern} is not the value of our {row.site}: {row.transformer_lens.note}. Name ours."
        )
    return row.site if found is None else row.site.replace("blocks.L.", found[0], 1)


def aside(hook: str) -> bool:
    """Whether a hook is one of TransformerLens's bridge that has no row: what a module of transformers reads or makes, or a rotary table.

    >>> aside("blocks.0.attn.q.hook_in"), aside("blocks.0.hook_in"), aside("blocks.0.hook_im")
    (True, False, False)
    """
    return hook.rpartition(".")[2] in ASIDE and _general(hook)[1] not in HOOKS


def _general(pattern: str) -> tuple[re.Match[str] | None, str]:
    """The block that a name or pattern begins with, if it does; and the name with `L` for its layer."""
    found = re.match(r"blocks\.(\{[^}]*\}|[^.]+)\.", pattern)
    return found, pattern if found is None else B + pattern[found.end() :]


def hooks(site: str) -> tuple[str, ...]:
    """TransformerLens's names of a site that mean its value.

    >>> hooks("blocks.3.resid_post")
    ('blocks.3.hook_resid_post', 'blocks.3.hook_out')
    """
    found = re.match(r"blocks\.\d+\.", site)
    general = site if found is None else B + site[found.end() :]
    return tuple(
        hook if found is None else hook.replace(B, found[0], 1)
        for hook, row in HOOKS.items()
        if row.site == general and row.transformer_lens is not None and row.transformer_lens.same
    )
