"""Whether two models can be one, by their sizes.

A size that no fault of a file changes tells two models from one another: the width of the stream, the number of blocks, the channels of the
MLPs and of all query heads, the number of experts, a vocabulary that lacks the prompt's tokens. There no signal of the one can be held to an
equation of the other. What a config may say wrongly, or a converter make otherwise, leaves two models comparable, and is found and named: into
how many heads the same channels are divided, key heads that are repeated, how many experts are chosen, rows that pad a vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmtrace.comparison.run import Run
from llmtrace.comparison.sides import Side
from llmtrace.errors import UnsupportedModelError
from llmtrace.spec import Block, GatedMlp, Mlp, ModelSpec, Moe


def check_same(reference: Side, candidate: Side) -> None:
    """Raise `UnsupportedModelError`, which names the sizes, where two models cannot be one."""
    told = _unlike(reference.spec, candidate.spec)
    if told:
        raise UnsupportedModelError(_words(reference, candidate, told))


def check_vocabulary(reference: Side, candidate: Side, runs: list[Run]) -> None:
    """Raise `UnsupportedModelError` where the reference's tokens are none of the candidate's."""
    highest = max(id for run in runs for id in run.ids)
    if highest >= candidate.spec.vocab:
        told = f"a vocabulary of {candidate.spec.vocab:,} instead of {reference.spec.vocab:,}, without token {highest}, which the prompt has"
        raise UnsupportedModelError(_words(reference, candidate, [told]))


def _words(reference: Side, candidate: Side, told: list[str]) -> str:
    return f"{candidate.name} is another model than {reference.name}: {', '.join(told)}. Compare a model with what was made of it."


def _unlike(reference: ModelSpec, candidate: ModelSpec) -> list[str]:
    """The sizes that tell them apart, and then, if there are any, those that might not have."""
    found = []
    if reference.d_model != candidate.d_model:
        found.append(f"a width of {candidate.d_model:,} instead of {reference.d_model:,}")
    if (ours := len(reference.blocks)) != (theirs := len(candidate.blocks)):
        found.append(f"{_many(theirs, 'blocks')} instead of {ours:,}")
    found += _of_blocks(reference, candidate, TELLING)
    if found:
        found += _of_blocks(reference, candidate, MISTAKABLE)
    if found and reference.vocab != candidate.vocab:
        found.append(f"a vocabulary of {candidate.vocab:,} instead of {reference.vocab:,}")
    return found


def _of_blocks(
    reference: ModelSpec, candidate: ModelSpec, sizes: Mapping[str, Callable[[Block], int | None]]
) -> list[str]:
    """Sizes that are others in every block that has them on both sides."""
    found = []
    for what, size in sizes.items():
        pairs = [(size(ours), size(theirs)) for ours, theirs in zip(reference.blocks, candidate.blocks, strict=False)]
        known = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
        if known and all(ours != theirs for ours, theirs in known):
            found.append(f"{_many(known[0][1], what)} instead of {known[0][0]:,}")
    return found


def _many(number: int, what: str) -> str:
    return f"{number:,} {what if number != 1 else what.removesuffix('s')}"


def _mlp(block: Block) -> int | None:
    each = [b.module for b in block.branches if isinstance(b.module, Mlp | GatedMlp | Moe)]
    return each[0].sizes["d_mlp"] if len(each) == 1 else None


def _experts(block: Block) -> int | None:
    """One in an MLP without a router."""
    each = [b.module for b in block.branches if isinstance(b.module, Mlp | GatedMlp | Moe)]
    return each[0].sizes.get("expert", 1) if len(each) == 1 else None


def _queries(block: Block) -> int | None:
    a = block.attention
    return None if a is None else a.heads * a.d_head


def _heads(block: Block) -> int | None:
    return None if block.attention is None else block.attention.heads


def _key_heads(block: Block) -> int | None:
    return None if block.attention is None else block.attention.kv_heads


TELLING: Mapping[str, Callable[[Block], int | None]] = {
    "channels of the MLPs": _mlp,
    "experts": _experts,
    "channels of all query heads": _queries,
}
MISTAKABLE: Mapping[str, Callable[[Block], int | None]] = {"query heads": _heads, "key heads": _key_heads}
"""Told beside those that tell."""
