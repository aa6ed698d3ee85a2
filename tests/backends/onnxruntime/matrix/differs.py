"""How two specs differ in what they compute, field by field. The name of the family, the longest prompt and whether a table is stored
twice change no number, and records that say the same in other words are the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import attrs
import numpy as np

from llmtrace.schema.rotary import frequencies, gain
from llmtrace.schema.steps import any_layer
from llmtrace.spec import Block, Branch, Mixer, ModelSpec, Moe, PreNorm, Rotary

SAME = 1e-5
"""How far numbers may lie apart, relative: they were read in float32."""
WORDS = frozenset({"family", "context", "tied"})
"""Fields that change no number."""


def differences(found: ModelSpec, expected: ModelSpec, length: int, neutral: Collection[str] = ()) -> tuple[str, ...]:
    """Lines like `blocks.{0,2}.attn.window 5 → none`, for prompts of `length` tokens. Branches that were not read are left out.

    `neutral` are weights of norms that change nothing: ones that multiply, noughts that are added.
    """
    lines: dict[str, dict[int, None]] = {}
    for at, ours, theirs in _fields("", found, expected, length):
        if at.replace(".weight", ".w").replace(".bias", ".b") in neutral and not theirs:
            continue
        layer = int(at.split(".")[1]) if at.startswith("blocks.") else -1
        text = f"{any_layer(at)} {_shown(theirs)} → {_shown(ours)}"
        lines.setdefault(text, {})[layer] = None  # a norm of two branches is met twice
    return tuple(_placed(text, list(layers), len(expected.blocks)) for text, layers in lines.items())


def _placed(text: str, layers: list[int], blocks: int) -> str:
    if layers == [-1]:
        return text
    which = "*" if len(layers) == blocks else ",".join(map(str, layers))
    return text.replace("blocks.L", f"blocks.{which}" if len(which) == 1 else f"blocks.{{{which}}}")


def _fields(at: str, found: Any, expected: Any, length: int) -> Iterator[tuple[str, Any, Any]]:
    """Where two records are not the same, and what each says there."""
    if isinstance(found, Block) and isinstance(expected, Block):
        yield from _block(at, found, expected, length)
        return
    if isinstance(found, Rotary) and isinstance(expected, Rotary):
        if not _turn_alike(found, expected, length):
            yield at, found, expected
    elif attrs.has(type(found)) and type(found) is type(expected):
        for name, ours in attrs.asdict(_plain(found), recurse=False).items():
            if name not in WORDS:
                yield from _fields(_named(at, name, found), ours, getattr(_plain(expected), name), length)
    elif isinstance(found, tuple) and isinstance(expected, tuple) and len(found) == len(expected):
        for place, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            yield from _fields(f"{at}.{_label(ours, place)}", ours, theirs, length)
    elif not _same(found, expected):
        yield at, found, expected


def _block(at: str, found: Block, expected: Block, length: int) -> Iterator[tuple[str, Any, Any]]:
    """Branch by branch, with the norm that each reads. One that was not read says nothing, and its norm neither."""
    for name in ("stream_scale", "carry_pre", "carry_mid", "carry_post"):
        yield from _fields(f"{at}.{name}", getattr(found, name), getattr(expected, name), length)
    if len(found.branches) != len(expected.branches):
        yield f"{at}.branches", len(found.branches), len(expected.branches)
        return
    for ours, theirs in zip(found.branches, expected.branches, strict=True):
        if isinstance(ours.module, Mixer):
            continue
        yield from _fields(f"{at}.{theirs.name}", attrs.evolve(ours, reads=""), attrs.evolve(theirs, reads=""), length)
        norm, its = _read_by(found, ours), _read_by(expected, theirs)
        name = its.name if its else f"{theirs.name}.reads"
        yield from _fields(f"{at}.{name}", norm and attrs.evolve(norm, name=name), its, length)


def _read_by(block: Block, branch: Branch) -> PreNorm | None:
    """The norm that a branch reads."""
    return next((norm for norm in block.norms if f"{norm.name}.out" == branch.reads), None)


def _named(at: str, name: str, record: Any) -> str:
    """A branch's module and the norms and branches of a block have the block's or the branch's own name."""
    return at if name in ("module", "norm", "norms", "branches") and at else f"{at}.{name}".lstrip(".")


def _label(record: Any, place: int) -> str:
    return str(getattr(record, "name", place))


def _plain(record: Any) -> Any:
    """Scores over all that are divided by the sum of the chosen are scores over the chosen."""
    if isinstance(record, Moe) and record.scoring == "softmax" and record.renormalise:
        return attrs.evolve(record, scoring="topk_softmax", renormalise=False)
    return record


def _turn_alike(a: Rotary, b: Rotary, length: int) -> bool:
    if (a.width, a.layout) != (b.width, b.layout):
        return False
    turned = [frequencies(each, length) * length for each in (a, b)]
    return bool(np.abs(turned[0] - turned[1]).max() < 1e-3) and _same(gain(a), gain(b))


def _same(a: Any, b: Any) -> bool:
    numbers = isinstance(a, int | float) and isinstance(b, int | float)
    return bool(abs(a - b) <= SAME * max(abs(a), abs(b))) if numbers else bool(a == b)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None or value == ():
        return "none"
    if attrs.has(type(value)):
        said = [
            f"{name}={_shown(each)}" for name, each in attrs.asdict(value, recurse=False).items() if each is not None
        ]
        return f"{type(value).__name__}({', '.join(said)})"
    return f"({', '.join(map(_shown, value))})" if isinstance(value, tuple) else str(value)
