"""A tensor block by block: what one error of the whole hides, a lost row or block among millions of right numbers, is seen in its own block.

**Step**: the distance of two neighbouring levels of a block (`formats`). Rounding leaves an error of 0.29 steps, root mean square, and no
quantiser leaves more than 0.5 where all numbers count alike. With an importance matrix it leaves up to 1.8 (Q6_K: 2.8), since it gives up
what matters little. **Super-block**: 256 numbers whose blocks share the scale of their scales, so that a block that is small beside its
neighbours is stored coarsely.
"""

from __future__ import annotations

import math

import numpy as np

from llmtrace.comparison.formats import LEVELS, Levels, plain
from llmtrace.comparison.pair import Pair
from llmtrace.schema.sites import Array
from llmtrace.words import counted

MOST = {
    "q4_0": 2.0, "q4_1": 2.0, "q5_0": 2.0, "q5_1": 2.0, "q8_0": 2.0, "iq4_nl": 2.0,
    "q4_k": 2.0, "q5_k": 2.0, "q6_k": 4.0, "iq4_xs": 2.0,
}  # fmt: skip
"""Steps that a block may be off by, root mean square. Formats of two and three bits lose what is within two steps of zero, and those of
ONNX have blocks that the type does not tell: there a block tells nothing."""
SUPER, SHARE = {"q4_k", "q5_k", "q6_k", "iq4_xs"}, 4
"""Formats with super-blocks of 256, and how much of the largest step in one counts for each of its blocks: one part of so many."""
SCREEN = 2.0
"""Times the tensor's expected error from which on a block is looked at: what is beyond `MOST` is beyond that as well."""
ALONE = 1.5
"""Steps that the other numbers of a block may be off by where one is at fault."""
PIECE = 1 << 16
"""Numbers that are looked at at once, as stay in the cache."""


def beyond_blocks(kind: str, pair: Pair, expected: float) -> str:
    """Where the candidate's tensor, stored as `kind`, has blocks that its format does not explain, in words; empty where it has none.

    `expected` is the relative error that the formats of both sides should cost.
    """
    name = plain(kind)
    if name not in MOST or not expected > 0 or pair.reference.shape != pair.candidate.shape:
        return ""
    levels = LEVELS[name]
    others = [axis for axis in range(pair.reference.ndim) if axis not in pair.rows]
    width = math.prod(pair.reference.shape[axis] for axis in pair.rows)
    if width % (256 if name in SUPER else levels.block):
        return ""
    ours, theirs = (x.transpose(*others, *pair.rows).reshape(-1, width) for x in (pair.reference, pair.candidate))
    each = max(1, PIECE // width)
    found: list[tuple[int, float]] = []
    for at in range(0, len(ours), each):
        blocks, steps = _off(name, levels, ours[at : at + each], theirs[at : at + each], SCREEN * expected)
        found += [
            (at * (width // levels.block) + int(one), float(step)) for one, step in zip(blocks, steps, strict=True)
        ]
    if len(found) == 1 and (words := _number(pair, others, ours, theirs, found[0][0] * levels.block, levels)):
        return words
    return _told(pair, others, found, width, levels.block, kind) if found else ""


def _off(name: str, levels: Levels, ours: Array, theirs: Array, screen: float) -> tuple[Array, Array]:
    """Each block that is off by more than `MOST`, counted from the first of these rows, and by how many steps it is."""
    r = np.ascontiguousarray(ours, np.float32).reshape(-1, levels.block)
    apart = np.ascontiguousarray(theirs, np.float32).reshape(-1, levels.block) - r
    error, size = (np.einsum("ij,ij->i", x, x) for x in (apart, r))
    seen = np.nonzero(~(error <= screen * screen * size))[0]
    if not len(seen):
        return seen, error[seen]
    if name in SUPER:
        several = 256 // levels.block
        around = _steps(levels, r.reshape(-1, several, levels.block)[seen // several])
        step = around[np.arange(len(seen)), seen % several] + around.max(1) / SHARE
    else:
        step = _steps(levels, r[seen])
    off = np.sqrt(error[seen] / levels.block) / np.maximum(step, np.finfo(np.float32).tiny)
    beyond = ~(off <= MOST[name])
    return seen[beyond], off[beyond]


def _steps(levels: Levels, blocks: Array) -> Array:
    """Of blocks along the last axis."""
    if levels.spans == "range":
        return np.asarray((blocks.max(-1) - blocks.min(-1)) / (2**levels.bits - 1))
    return np.asarray(np.abs(blocks).max(-1) / (2 ** (levels.bits - 1) - 0.5))


def _number(pair: Pair, others: list[int], ours: Array, theirs: Array, at: int, levels: Levels) -> str:
    """Which number differs, if the others of its block, which begins `at`, do not."""
    row, column = divmod(at, ours.shape[1])
    r, c = (x[row, column : column + levels.block].astype(np.float64) for x in (ours, theirs))
    one = int(np.abs(c - r).argmax())
    if np.abs(np.delete(c - r, one)).max() > ALONE * float(_steps(levels, r)):
        return ""
    shape = [pair.reference.shape[axis] for axis in (*others, *pair.rows)]
    place = dict(zip((*others, *pair.rows), np.unravel_index(at + one, shape), strict=True))
    where = ", ".join(str(int(place[axis])) for axis in range(len(place)))
    return f"one number differs: [{where}] is {c[one]:.4g} instead of {r[one]:.4g}"


def _told(pair: Pair, others: list[int], found: list[tuple[int, float]], width: int, block: int, kind: str) -> str:
    """`row 100 (d_mlp), 1 block of 32: off by 3.7 steps, where Q4_1 explains half of one`"""
    axes = ", ".join(pair.axes[axis] for axis in others)
    places = sorted({at * block // width for at, _ in found})
    rows = f"row {places[0]} ({axes})" if len(places) == 1 else f"{len(places):,} rows ({axes}) from row {places[0]} on"
    count, most = f"{counted(len(found), 'block')} of {block}", "up to " * (len(found) != 1)
    return (
        f"{rows}, {count}: off by {most}{max(step for _, step in found):.1f} steps, where {kind} explains half of one"
    )
