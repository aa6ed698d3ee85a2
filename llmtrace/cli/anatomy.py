"""A model's spec for people and as JSON. **Kind of site**: the same site of every block, where all else is equal too."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from attrs import NOTHING, fields, has

from llmtrace.schema.steps import any_layer

if TYPE_CHECKING:
    from llmtrace.protocol import TraceSession
    from llmtrace.schema.steps import Step
    from llmtrace.spec import Block, ModelSpec


def parameters(steps: Iterable[Step], tied: bool) -> int:
    """How many numbers the model's weights hold; an unembedding that is the embedding counts once."""
    weights = {weight.name: math.prod(weight.shape) for step in steps for weight in step.weights.values()}
    return sum(size for name, size in weights.items() if not (tied and name == "unembed.W_U"))


def stored(session: TraceSession) -> dict[str, int]:
    """Storage type to number of weights; empty where the backend does not read them."""
    from llmtrace.protocol import SupportsWeights

    return dict(Counter(session.stored.values()).most_common()) if isinstance(session, SupportsWeights) else {}


def by_kind(sites: Iterable[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any], int, int | None]]:
    """Kind, the first row of that kind, how many there are, and their bytes in all (None where they cannot be had)."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for site in sites:
        kind, reason = any_layer(site["site"]), any_layer(site["reason"])
        key = (kind, reason, *site["axes"], *site["shape"], site["dtype"], site["availability"])
        groups.setdefault(key, []).append(site | {"reason": reason})
    for key, rows in groups.items():
        sizes = [row["bytes"] for row in rows]
        yield key[0], rows[0], len(rows), None if None in sizes else sum(sizes)


def tree(spec: ModelSpec) -> Iterator[str]:
    """The parts of a model, one a line; blocks that are alike stand together. What a record leaves at its default is not said."""
    yield f"{spec.family}: d_model {spec.d_model}, vocab {spec.vocab}, context {spec.context or 'without limit'}"
    yield f"  embed: {described(spec.embed)}"
    if spec.positions is not None:
        yield f"  pos_embed: {described(spec.positions)}"
    for first, last, block in _alike(spec.blocks):
        yield f"  blocks.{first}" if first == last else f"  blocks.{{{first}..{last}}}"
        yield from _block(block)
    yield f"  ln_final: {described(spec.ln_final)}"
    if spec.head is not None:
        yield f"  head: {described(spec.head)}"
    yield f"  unembed: {described(spec.unembed)}"


def _block(block: Block) -> Iterator[str]:
    for norm in block.norms:
        yield f"    {norm.name} ← {norm.reads}: {described(norm.norm)}"
    for branch in block.branches:
        more = f", times {branch.multiplier:g}" if branch.multiplier != 1 else ""
        more += ", times one number a channel" if branch.weight else ""
        yield f"    {branch.name} ← {branch.reads}: {described(branch.module)}{more}"
        if branch.post is not None:
            yield f"    {branch.name}_post ← {branch.name}.out: {described(branch.post)}"
    for point, carry in (("pre", block.carry_pre), ("mid", block.carry_mid), ("post", block.carry_post)):
        if (said := described(carry)) != "Carry":
            yield f"    resid_{point} ← {said}"
    if block.stream_scale != 1:
        yield f"    the stream is then multiplied by {block.stream_scale:g}"


def _alike(blocks: tuple[Block, ...]) -> Iterator[tuple[int, int, Block]]:
    """Runs of equal blocks: first, last, and the block."""
    first = 0
    for place in range(1, len(blocks) + 1):
        if place == len(blocks) or blocks[place] != blocks[first]:
            yield first, place - 1, blocks[first]
            first = place


def described(record: Any) -> str:
    """A record's type and the fields that are not at their defaults: `Norm(eps 1e-05)`."""
    said = [
        f"{field.name} {_value(getattr(record, field.name))}"
        for field in fields(type(record))
        if field.default is NOTHING or getattr(record, field.name) != field.default
    ]
    return f"{type(record).__name__}({', '.join(said)})" if said else type(record).__name__


def _value(value: Any) -> str:
    if has(type(value)):
        return described(value)
    if isinstance(value, tuple):
        shown = ", ".join(map(_value, value[:4])) + (f", … {len(value)} in all" if len(value) > 4 else "")
        return f"[{shown}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
