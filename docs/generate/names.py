"""The page of names: what TransformerLens, interp-engine and nnterp call our sites."""

from __future__ import annotations

from llmtrace.schema.names import NAMES, Name
from table import NOTICE, code, table

INTRO = """# Names in other tools

Sites carry TransformerLens's names wherever the values are the same, and its hook names are accepted wherever a selection is:
`blocks.0.attn.hook_attn_scores` means `blocks.0.attn.scores`. A name that means *another* value is refused, with the reason below.
`≠` marks it. `L` is the number of a block. TransformerLens's names are those of `HookedTransformer` and of its bridge to
transformers models; interp-engine's are its points; nnterp's are the accessors of its standardised models. All three have a batch
axis, which we have not.

"""


def page() -> str:
    """The whole page."""
    head = ("site", "TransformerLens", "interp-engine", "nnterp")
    rows = [(code(r.site), *map(_cell, (r.transformer_lens, r.interp_engine, r.nnterp))) for r in NAMES]
    return NOTICE + INTRO + table(head, rows).rstrip() + "\n"


def _cell(name: Name | None) -> str:
    if name is None:
        return "–"
    also = "".join(f", {code(other)}" for other in name.also)
    note = f": {name.note}" if name.note else ""
    return f"{'' if name.same else '≠ '}{code(name.name)}{also}{note}"
