"""What a trace holds, in few rows. **Group**: signals that differ in their layer only; its name is a pattern that a selection takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from attrs import evolve, frozen

from llmtrace.schema.precision import Precision
from llmtrace.schema.steps import any_layer
from llmtrace.trace import Signal, Trace


@frozen
class Group:
    """One row: signals of several layers that are alike."""

    site: str
    """A site, or a pattern: `blocks.{0..29}.attn.q`."""
    axes: str
    """With their sizes: `head=9 query=5 key=5`; an axis that has no name but its length stands alone, `1`."""
    dtype: str
    bytes: int
    """Of all its signals together."""
    provenance: str
    """With `L` for the layer where there are several."""
    precision: str


def groups(trace: Trace) -> list[Group]:
    """The recorded signals, layers alike together, in dataflow order."""
    found: dict[Group, list[Signal]] = {}
    for signal in trace.signals.values():
        alone = group([signal])
        alike = evolve(alone, site=any_layer(alone.site), provenance=any_layer(alone.provenance), bytes=0)
        found.setdefault(alike, []).append(signal)
    return [group(signals) for signals in found.values()]


def group(signals: Sequence[Signal]) -> Group:
    """The row of signals that differ in their layer only."""
    first = signals[0]
    sizes = zip(first.axes, first.shape, strict=True)
    axes = " ".join(axis if axis == str(size) else f"{axis}={size}" for axis, size in sizes)
    provenance = str(first.provenance) if len(signals) == 1 else any_layer(str(first.provenance))
    held = sum(signal.bytes for signal in signals)
    return Group(
        pattern([signal.site for signal in signals]), axes, str(first.dtype), held, provenance, words(first.precision)
    )


def words(precision: Precision) -> str:
    """`bfloat16, sums float32, table of GELU`; one word where storage and sums agree."""
    sums = "" if precision.accumulation == precision.storage else f"sums {precision.accumulation}"
    return ", ".join(filter(None, [precision.storage, sums, precision.functions]))


def pattern(sites: Sequence[str]) -> str:
    """The pattern that names sites which differ in their layer only.

    >>> pattern(["blocks.0.attn.q", "blocks.1.attn.q"]), pattern(["embed"])
    ('blocks.{0..1}.attn.q', 'embed')
    """
    if len(sites) == 1:
        return sites[0]
    layers = [int(site.split(".")[1]) for site in sites]
    return re.sub(r"^blocks\.\d+\.", f"blocks.{{{runs(layers)}}}.", sites[0])


def runs(numbers: Iterable[int]) -> str:
    """Ascending numbers with their runs drawn together.

    >>> runs([0, 1, 2, 5, 7, 8])
    '0..2,5,7..8'
    """
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(first) if first == last else f"{first}..{last}" for first, last in spans)
