"""From the name of a stored tensor to the module that owns it. **Owner**: the module of the loaded model whose parameter it is.

Stored and loaded names are the same but for the few that transformers changes on loading; those are the rows below.
"""

from __future__ import annotations

from collections.abc import Container

from llmtrace.families.native import Family, row_of
from llmtrace.schema.steps import layer_of

CHANGED: tuple[tuple[str, str], ...] = (
    ("block_sparse_moe", "mlp"),
    ("router.layer", "router"),
    ("model.", "model.language_model."),
)
"""Text of a stored name, and what transformers puts in its place on loading. Tried only where the stored name leads nowhere."""


def owner(family: Family, weight: str, modules: Container[str]) -> str | None:
    """The loaded model's name of the module that owns a schema weight; None if there is no such module.

    Tensors that are stacked (one an expert, one a head) belong to the module around the list of them.
    """
    stored = _stored(family, weight)
    return None if stored is None else loaded(stored, modules)


def loaded(module: str, modules: Container[str]) -> str | None:
    """The loaded name of a module that is stored as `module`."""
    tried = {module}
    for old, new in CHANGED:
        tried |= {name.replace(old, new, 1) for name in tried}
    return module if module in modules else next((name for name in sorted(tried) if name in modules), None)


def common(family: Family, weights: tuple[str, ...], modules: Container[str]) -> str | None:
    """The innermost module that owns all of several weights, directly or not."""
    paths = [stored.split(".") for weight in weights if (stored := _stored(family, weight)) is not None]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return loaded(".".join(shared), modules) if paths else None


def block(family: Family, layer: int, modules: Container[str]) -> str | None:
    """The module of one block: what its weights' names share, up to the layer's number."""
    stems = {row.name.partition(".L.")[0] for row in family.weights.values() if ".L." in row.name}
    return loaded(f"{stems.pop()}.{layer}", modules) if len(stems) == 1 else None


def _stored(family: Family, weight: str) -> str | None:
    """The stored name without its last part, and without a list of stacked ones; None if the family has no such weight."""
    row = row_of(family, weight)
    if row is None:
        return None
    name = row.name.replace(".L.", f".{layer_of(weight)}.")
    return name.partition(".E.")[0].rpartition(".")[0]
