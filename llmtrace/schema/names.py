"""What other tools call our sites, and whether they mean the same value by it. Data: code, docs and tests read this table.

A template stands for every layer: `blocks.L.attn.z`. A **row**'s `same` says whether the other tool's value under that name equals
ours on every model; where it does not, `note` says how they differ.
"""

from __future__ import annotations

import re

from attrs import frozen

from llmtrace.errors import UnknownSignalError


@frozen
class Name:
    """One tool's name for a site."""

    name: str
    same: bool = True
    note: str = ""


@frozen
class Row:
    """A site and its names elsewhere; None where a tool has no such point."""

    site: str
    transformer_lens: Name | None = None
    interp_engine: Name | None = None
    nnterp: Name | None = None


def _tl(site: str, hook: str, same: bool = True, note: str = "") -> Row:
    return Row(site, Name(hook, same, note))


B = "blocks.L."
NAMES: tuple[Row, ...] = (
    _tl("embed", "hook_embed"),
    _tl("pos_embed", "hook_pos_embed"),
    _tl(B + "resid_pre", B + "hook_resid_pre"),
    _tl(B + "ln1.scale", B + "ln1.hook_scale"),
    _tl(B + "ln1.normalized", B + "ln1.hook_normalized", False, "after the weight for some norms, before it for others"),
    _tl(B + "attn.q", B + "attn.hook_q"),
    _tl(B + "attn.k", B + "attn.hook_k"),
    _tl(B + "attn.v", B + "attn.hook_v"),
    _tl(B + "attn.rot_q", B + "attn.hook_rot_q"),
    _tl(B + "attn.rot_k", B + "attn.hook_rot_k"),
    _tl(B + "attn.scores", B + "attn.hook_attn_scores"),
    _tl(B + "attn.pattern", B + "attn.hook_pattern"),
    _tl(B + "attn.z", B + "attn.hook_z"),
    _tl(B + "attn.result", B + "attn.hook_result"),
    _tl(B + "attn_out", B + "hook_attn_out"),
    _tl(B + "resid_mid", B + "hook_resid_mid"),
    _tl(B + "ln2.scale", B + "ln2.hook_scale"),
    _tl(B + "ln2.normalized", B + "ln2.hook_normalized", False, "after the weight for some norms, before it for others"),
    _tl(B + "mlp.pre", B + "mlp.hook_pre"),
    _tl(B + "mlp.pre_linear", B + "mlp.hook_pre_linear"),
    _tl(B + "mlp.post", B + "mlp.hook_post"),
    _tl(B + "mlp_out", B + "hook_mlp_out"),
    _tl(B + "resid_post", B + "hook_resid_post"),
    _tl("ln_final.scale", "ln_final.hook_scale"),
    _tl("ln_final.normalized", "ln_final.hook_normalized", False, "after the weight for some norms, before it for others"),
)


def from_transformer_lens(pattern: str) -> str:
    """Our pattern for a TransformerLens hook name; the layer may be a number or a pattern, which is kept.

    Raises `UnknownSignalError` where the two tools mean different values, or there is no such hook.

    >>> from_transformer_lens("blocks.0.attn.hook_attn_scores")
    'blocks.0.attn.scores'
    """
    found = re.match(r"blocks\.([^.]+|\{[^}]*\})\.", pattern)
    general = pattern if found is None else B + pattern[found.end() :]
    for row in NAMES:
        other = row.transformer_lens
        if other is not None and other.name == general:
            if not other.same:
                raise UnknownSignalError(f"TransformerLens's {pattern} is not the value of our {row.site}: {other.note}. Name ours.")
            return row.site if found is None else row.site.replace("blocks.L.", found[0], 1)
    raise UnknownSignalError(f"TransformerLens's {pattern!r} has no site here; `llmtrace info MODEL` lists the sites.")
