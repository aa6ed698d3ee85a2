"""Rotary embeddings, at prompts of every length. **Table**: what channels are multiplied by, made of positions and not of tokens;
**switch**: the longest prompt whose tables are those of short ones, where longer prompts have others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from attrs import evolve, frozen

from llmtrace.dataflow.graph import Vertex
from llmtrace.dataflow.identify.decimals import settle
from llmtrace.dataflow.identify.measured import Unfit, double
from llmtrace.dataflow.identify.rotary import find_rotary, off_by
from llmtrace.dataflow.reading.reader import Reader, Unreadable
from llmtrace.errors import BackendError
from llmtrace.schema.rotary import frequencies, gain
from llmtrace.schema.sites import Array
from llmtrace.spec import DynamicNtk, LongRope, Rotary

LONG = (4096, 1024, 256, 64)
"""Lengths at which a rotary embedding is read, the first that the graph takes."""
LENGTHS = (2, 16, 64, 256, 1024, 4096, 16384)
"""Lengths at which tables are compared."""
CHEAP = 12
"""Vertices from the looked-up rows on that may be computed for a long prompt without a thought."""
BLANK = frozenset({"empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided"})
"""Operators that hand out memory as it is."""
CLOSE = 1e-5
"""How near numbers of two tables, or two frequencies, are that are the same."""
SLOW = 1e-7
"""Radians a position that make no difference."""
Run: TypeAlias = Callable[[int], tuple[Array, Array]]
"""Queries of so many positions, before and after they are turned."""


@frozen
class Switch:
    """That tables change with the prompt's length."""

    last: int
    """The longest prompt with the tables of short ones."""
    steady: bool
    """Whether all longer ones have the same."""


def find_switch(reader: Reader, names: Sequence[str], given: Callable[[int], Mapping[str, Array]]) -> Switch | None:
    """Where tables change with the prompt's length; None where they do not. `given` is content whose shape they may rest on."""
    lengths = [length for length in LENGTHS if length <= longest(reader, names, given(2))]
    known: dict[int, list[Array]] = {}

    def tables(length: int) -> list[Array]:
        if length not in known:
            made = reader.pieces.run(given(length), names, length)
            known[length] = [made[name] for name in names if made[name].dtype.kind in "fV"]
        return known[length]

    changes: list[tuple[int, int]] = []
    for here, there in pairwise(lengths):
        try:
            if not _agree(tables(here), tables(there)):
                changes.append((here, there))
        except BackendError:  # a table ends somewhere: no prompt is longer
            break
    if not changes:
        return None
    low, high = changes[0]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _agree(tables(lengths[0]), tables(middle)) else (low, middle)
    steady = len(changes) == 1 and _agree(tables(low + 1), tables(changes[0][1]))
    return Switch(low, steady)


def tables_of(reader: Reader, vertices: Sequence[Vertex]) -> list[str]:
    """What some vertices read that is neither content nor a constant, nor memory that nothing was written into yet."""
    graph = reader.flow.graph
    found = dict.fromkeys(name for vertex in vertices for name in vertex.reads if name and name not in reader.flow)
    return [
        name
        for name in found
        if name not in graph.constants and not (name in graph.maker and graph.maker[name].op in BLANK)
    ]


def read_rotary(reader: Reader, run: Run, switch: Switch | None, unit: float) -> Rotary | None:
    """The rotary embedding that `run` carries out, at the longest prompt that it takes, and on both sides of a switch."""
    lengths = [each for each in (*LONG, reader.context) if each <= min(reader.context, LONG[0])]
    beyond = [each for each in lengths if switch is not None and each > switch.last]
    if switch is None or not beyond:
        return _fits(find_rotary(*reader.longest([*lengths, reader.tokens], run), unit=unit))
    short, long = run(switch.last), reader.longest(beyond, run)
    if not switch.steady:
        return _dynamic(short, long, switch.last, unit)
    return _fits(find_rotary(*short, longer=long, context=switch.last, unit=unit))


def alike(one: Rotary | None, other: Rotary | None) -> bool:
    """Whether two turn by the same angles: what no formula is known for is measured of each, and rounded."""
    kinds = [each and (each.width, each.layout, each.start, each.backwards) for each in (one, other)]
    if one is None or other is None or kinds[0] != kinds[1]:
        return one is other
    lengths = {
        2,
        *(each.scaling.context + 1 for each in (one, other) if isinstance(each.scaling, DynamicNtk | LongRope)),
    }
    return bool(np.isclose(gain(one), gain(other), rtol=CLOSE)) and all(
        np.allclose(frequencies(one, length), frequencies(other, length), rtol=CLOSE, atol=SLOW) for length in lengths
    )


def _dynamic(short: tuple[Array, Array], long: tuple[Array, Array], context: int, unit: float) -> Rotary:
    """A base that grows with the prompt: `theta (1 + factor (n / context - 1)) ^ (width / (width - 2))`."""
    first, last = _fits(find_rotary(*short, unit=unit)), _fits(find_rotary(*long, unit=unit))
    if first and last and not first.scaling and not last.scaling and first.width == last.width > 2:
        stretch = (last.theta / first.theta) ** ((first.width - 2) / first.width)
        factor = (stretch - 1) / (len(long[0]) / context - 1)
        found = evolve(first, scaling=DynamicNtk(settle(factor, 1e-3 * factor), context))
        if all(off_by(found, double(before), double(after), unit) <= 1 for before, after in (short, long)):
            return found
    raise Unreadable(f"the frequencies of its rotary embedding change with every length of a prompt over {context}")


def _fits(found: Rotary | Unfit | None) -> Rotary | None:
    if isinstance(found, Unfit):
        raise Unreadable(f"what turns heads is no rotary embedding, because {found.why}")
    return found


def _agree(short: Sequence[Array], long: Sequence[Array]) -> bool:
    """Whether the tables of a prompt begin as those of a shorter one."""
    return all(_begins(one, other) for one, other in zip(short, long, strict=True))


def _begins(short: Array, long: Array) -> bool:
    if short.ndim != long.ndim or any(one > other for one, other in zip(short.shape, long.shape, strict=True)):
        return False
    part = long[tuple(slice(length) for length in short.shape)]
    return bool(np.allclose(short.astype(np.float32), part.astype(np.float32), rtol=CLOSE, atol=CLOSE))


def longest(reader: Reader, names: Sequence[str], given: Mapping[str, Array] = MappingProxyType({})) -> int:
    """The longest prompt for which tables are computed: less where the content whose shape they rest on costs more."""
    waiting, seen = list(names), set(given)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in reader.flow and len(list(reader.flow.between(reader.flow.seed, name))) > CHEAP:
            return 1024
        vertex = reader.flow.graph.maker.get(name)
        waiting += [each for each in vertex.reads if each] if vertex is not None else []
    return LONG[0] if given else LENGTHS[-1]
