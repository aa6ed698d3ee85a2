"""Rotary, from queries before and after a piece that turned them at positions 0 to n - 1.

Which channels are paired is seen from lengths, which turning keeps; how fast they turn from phases; and what is found is held to the
schema's own rotation of all queries. A second, longer run shows frequencies that change with the length of the prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import numpy as np
from attrs import evolve

from llmtrace.dataflow.identify.decimals import settle
from llmtrace.dataflow.identify.frequencies import plain, stretched, vague
from llmtrace.dataflow.identify.measured import FLOAT32, Unfit, double, worst
from llmtrace.dataflow.identify.phases import Layout, Turning, keeps_lengths, mirrored, pairs, turning
from llmtrace.schema.rotary import frequencies, gain, rotate
from llmtrace.schema.sites import Array
from llmtrace.spec import Rotary

LAYOUTS: tuple[Layout, ...] = ("half", "interleaved")
Run: TypeAlias = tuple[Array, Array]
"""q and rot, `[token head d_head]`, of one run."""


def find_rotary(
    q: Array,
    rot: Array,
    *,
    longer: Run | None = None,
    context: int | None = None,
    candidates: Iterable[float] = (),
    unit: float = FLOAT32,
) -> Rotary | Unfit | None:
    """How positions turn q; None where `rot` is q.

    q should be random; 64 positions tell usual bases, more tell slow pairs better. `longer`: a run of more positions; where it has other
    frequencies than the first, the record is a `LongRope` that changes at `context` (that of the graph, else the length of the first run,
    the longest that is known to have the first ones). `candidates`: numbers that may be theta, a factor or the gain.
    """
    runs = [(double(one), double(other)) for one, other in ((q, rot), *([longer] if longer else []))]
    for before, after in runs:
        if before.shape != after.shape or before.ndim != 3 or len(before) < 2:
            return Unfit(f"{before.shape} became {after.shape}")
        if not np.isfinite(after).all():
            return Unfit("rotated queries are not finite")
    if all((before == after).all() for before, after in runs):
        return None
    why: Unfit = Unfit("no pairing of channels keeps the lengths of pairs")
    kept: Rotary | None = None
    for width, layout in _pairings(*runs[-1], unit):
        found = _fit(runs, width, layout, context, list(candidates), unit)
        if isinstance(found, Unfit):
            mirror = [(mirrored(before, width, layout), mirrored(after, width, layout)) for before, after in runs]
            other = _fit(mirror, width, layout, context, list(candidates), unit)
            found = found if isinstance(other, Unfit) else evolve(other, backwards=True)
        if isinstance(found, Unfit):
            why = found
        elif found.scaling is None:
            return found
        else:
            kept = kept or found
    return kept or why


def _pairings(q: Array, rot: Array, unit: float) -> Iterator[tuple[int, Layout]]:
    """Widths and layouts that keep lengths, seen on a few tokens; the width of the channels that change first."""
    changed = np.flatnonzero((np.abs(rot - q) > 4 * unit * np.abs(q)).any((0, 1)))
    least, whole = int(changed.max(initial=1)) + 1, q.shape[-1] - q.shape[-1] % 2
    some = np.unique(np.geomspace(1, len(q), 24).astype(int)) - 1
    few, turned = q[some][:, :4], rot[some][:, :4]
    tried = [least + least % 2, whole, *range(2, whole + 1, 2)]
    for layout in LAYOUTS:
        for width in dict.fromkeys(
            tried
        ):  # the last pairs may turn too slowly to be seen, and with them the last channels
            if least <= width <= whole and keeps_lengths(few, turned, width, layout, unit):
                yield width, layout


def _fit(
    runs: list[Run], width: int, layout: Layout, context: int | None, candidates: list[float], unit: float
) -> Rotary | Unfit:
    seen: list[Turning] = []
    for before, after in runs:
        turned = turning(before, after, width, layout, unit)
        if isinstance(turned, Unfit):
            return turned
        seen.append(turned)
    short, long = seen[0], seen[-1]
    if abs(short.gain - long.gain) > 16 * unit * long.gain:
        return Unfit(f"it multiplies by {short.gain:.6g} in a short prompt and by {long.gain:.6g} in a long one")
    factor = settle(long.gain, 2 * unit * long.gain, candidates, trust=8 * unit * long.gain, exact=(1.0,))
    one = bool((np.abs(short.frequency - long.frequency) <= short.error + long.error).all())
    found = plain(long, width, layout, candidates) if one and factor == 1.0 else None
    if found is None:
        at = context or len(runs[0][0])
        if not one and not len(runs[0][0]) <= at < len(runs[1][0]):
            return Unfit(f"frequencies change between {len(runs[0][0])} and {len(runs[1][0])} positions, not at {at}")
        slow = [len(run[0]) for run, turned in zip(runs, seen, strict=True) if vague(turned, width)]
        if slow and not (one and slow[-1] < len(runs[-1][0])):
            return Unfit(f"its slowest pairs turn too little in {slow[-1]} positions to be measured: run more of them")
        found = stretched(long if one else short, long, at, factor, width, layout, candidates)
    for before, after in runs:
        off = off_by(found, before, after, unit)
        if off > 1:
            return Unfit(
                f"as {found.layout} pairs of {width} channels: it is off by {off:.3g} times what rounding explains"
            )
    return found


def off_by(found: Rotary, before: Array, after: Array, unit: float) -> float:
    """The largest deviation from the schema's rotation, in units of what rounding explains: of the products, and of angles, which grow."""
    position = np.arange(len(before))
    first, second = pairs(found.width, found.layout)
    size = np.hypot(before[..., first], before[..., second]) * gain(found)
    noise = np.abs(before) * 2 * unit + 2.0**-126
    each = 8 * unit * size * (1 + position[:, None, None] * frequencies(found, len(before)))
    noise[..., first] += each
    noise[..., second] += each
    return worst(after, rotate(found, before, position), noise)
