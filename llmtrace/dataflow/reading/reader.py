"""What all readings share. **Probe**: the graph run once on a short prompt, every value of interest kept: shapes, types, and numbers that
records are checked with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, TypeVar

import ml_dtypes
import numpy as np
from attrs import field, frozen

from llmtrace.dataflow.constants import Source
from llmtrace.dataflow.graph import Flow, Vertex
from llmtrace.dataflow.identify.measured import BFLOAT16, FLOAT16, FLOAT32
from llmtrace.dataflow.pieces import RunsParts
from llmtrace.dataflow.segments import Segment
from llmtrace.errors import BackendError
from llmtrace.schema.sites import Array

T = TypeVar("T")
SMALL = 64
"""Numbers of a constant that is known by them."""
UNITS = {np.dtype(np.float16): FLOAT16, np.dtype(ml_dtypes.bfloat16): BFLOAT16}
"""Type of a value to its unit of rounding."""


def probe_prompt(vocab: int, tokens: int, more: int = 0, seed: int = 0) -> list[int]:
    """Tokens from all over the vocabulary, one of the first `tokens` of them twice, and as many `more` as a longer probe takes."""
    drawn = np.random.default_rng(seed).integers(0, vocab, tokens + more)
    drawn[tokens - 2] = drawn[1]
    return [int(token) for token in drawn]


class Unreadable(Exception):  # noqa: N818  (no error of the user: the part becomes opaque, with this as the reason)
    """Why a part is nothing that the spec has words for."""


@frozen(eq=False)
class Reader:
    """One graph, and what its probe showed."""

    flow: Flow
    pieces: RunsParts
    constants: Mapping[str, Array]
    probe: Mapping[str, Array]
    """Value to what it was for the probe's prompt."""
    tokens: int
    """Length of the probe's prompt."""
    context: int
    """The longest prompt that the graph is known to take."""
    _known: dict[object, Any] = field(factory=dict, init=False)
    _acts: dict[object, int] = field(factory=dict, init=False)
    """How a value is made to a number for it, since such a description would hold others."""

    def longest(self, lengths: Iterable[int], run: Callable[[int], T]) -> T:
        """What `run` finds at the first of some lengths that the graph takes, at most the context: its tables and masks may end somewhere.

        Raises `Unreadable` where it takes none of them.
        """
        for length in lengths:
            if length <= max(self.context, self.tokens):
                try:
                    return run(length)
                except BackendError:
                    continue
        raise Unreadable("it does not run by itself, on a prompt of any length")

    def unit(self, *names: str) -> float:
        """The coarsest unit of rounding of some values."""
        return max(
            (UNITS.get(self.probe[name].dtype, FLOAT32) for name in names if name in self.probe), default=FLOAT32
        )

    def once(self, kind: str, firsts: Sequence[str], last: str, compute: Callable[[], T], *more: object) -> T:
        """What `compute` finds out about the way from some values to another; layers that do the same are asked once.

        They do the same where their operators, attributes and small constants are the same, and so are those of everything else that they
        read and that is no content, lengths of what lies on the way too; large constants and other content are the very same values.
        """
        way = [vertex for first in firsts for vertex in self.flow.between(first, last)]
        key = (kind, *more, tuple(self.probe[name].shape for name in firsts), *self._signature(firsts, way, last))
        return self.known(key, compute)

    def known(self, key: object, compute: Callable[[], T]) -> T:
        """What `compute` finds out, once for each key."""
        if key not in self._known:
            self._known[key] = compute()
        found: T = self._known[key]
        return found

    def _signature(self, firsts: Sequence[str], way: Iterable[Vertex], last: str) -> Iterator[object]:
        place = count()
        names: dict[str, object] = {name: next(place) for name in firsts}
        for vertex in sorted(set(way), key=lambda each: each.index):
            yield self._act(vertex, names), len(vertex.makes)
            names |= {name: next(place) for name in vertex.makes}
        yield names.get(last, last)

    def _act(self, vertex: Vertex, names: dict[str, object]) -> object:
        """What a vertex does, to what; `names` are the values that are told apart so far."""
        attributes = repr(sorted(vertex.attributes.items(), key=lambda item: item[0]))
        return vertex.op, vertex.domain, attributes, tuple(self._meaning(name, names) for name in vertex.reads)

    def _meaning(self, name: str, names: dict[str, object]) -> object:
        """What a value is: a small constant by its numbers, what is no content by how it is made, anything else by itself."""
        if name not in names:
            names[name] = name
            vertex = self.flow.graph.maker.get(name)
            if name in self.flow.graph.constants:
                array = np.asarray(self.constants[name])
                if array.size <= SMALL:
                    names[name] = array.dtype.name, array.shape, array.tobytes()
            elif vertex is not None and name not in self.flow:
                act = vertex.makes.index(name), self._act(vertex, names)
                names[name] = "made", self._acts.setdefault(act, len(self._acts))
        return names[name]

    def rows(self, first: str, last: str) -> Callable[[Array], Array]:
        """What lies between two values that are rows of channels, as a function of rows."""

        def run(x: Array) -> Array:
            given = {first: self.native(first, x)}
            return self.pieces.run(given, (last,), len(x))[last].reshape(len(x), -1).astype(np.float32)

        return run

    def onward(self, first: str, native: Array, last: str, tokens: int) -> Array:
        """What one value becomes as another further on, given as it lies; itself where they are the same."""
        return native if first == last else self.pieces.run({first: native}, (last,), tokens)[last]

    def native(self, name: str, x: Array) -> Array:
        """Rows of channels with the type of a value, and as many axes."""
        value = self.probe[name]
        return x.reshape(*(1,) * (value.ndim - 2), len(x), -1).astype(value.dtype)

    def numbers(self, vertices: Iterable[Vertex]) -> list[float]:
        """The single numbers among the constants that some vertices read."""
        found: list[float] = []
        for name in self.read_constants(vertices):
            if self.flow.graph.is_number(name):
                array = np.asarray(self.constants[name])
                if array.dtype.kind == "f" and array.size == 1:
                    found.append(float(array.reshape(())))
        return found

    def vector(self, segment: Segment, wanted: Array) -> Source | None:
        """The constant among those that a segment reads that holds some values; or several, one for each head. None where there is none."""
        held: list[tuple[str, Array]] = []
        for name in self.read_constants(segment.vertices):
            array = np.asarray(self.constants[name]) if not self.flow.graph.is_number(name) else np.zeros(0)
            if array.dtype.kind in "fV" and array.size:
                held.append((name, array.reshape(-1).astype(np.float64)))
        if (one := _holding(held, wanted.reshape(-1))) is not None:
            return Source(one, lambda: np.asarray(self.constants[one]).reshape(wanted.shape))
        each = [_holding(held, row) for row in wanted] if wanted.ndim > 1 else []
        if not each or None in each:
            return None
        names = [name for name in each if name is not None]
        return Source(names[0], lambda: np.stack([np.asarray(self.constants[name]).reshape(-1) for name in names]))

    def number(self, segment: Segment, wanted: float) -> Source | None:
        """The single number among the constants that a segment reads that is nearest to a measured one, [1]; None where none is near."""
        held = {
            name: float(np.asarray(self.constants[name]).astype(np.float64).reshape(()))
            for name in self.read_constants(segment.vertices)
            if self.flow.graph.is_number(name) and np.asarray(self.constants[name]).dtype.kind in "fV"
        }
        near = [name for name, value in held.items() if abs(value - wanted) <= 1e-3 * abs(wanted)]
        if not near:
            return None
        one = min(near, key=lambda name: abs(held[name] - wanted))
        return Source(one, lambda: np.asarray(self.constants[one]).reshape(1))

    def read_constants(self, vertices: Iterable[Vertex]) -> list[str]:
        """The constants that some vertices read, in order."""
        names = [name for vertex in vertices for name in vertex.reads if name in self.flow.graph.constants]
        return list(dict.fromkeys(names))


def _holding(held: Iterable[tuple[str, Array]], wanted: Array) -> str | None:
    """The first of some arrays that holds what was measured."""
    size = np.abs(wanted).max(initial=0.0) or 1.0
    return next(
        (
            name
            for name, array in held
            if array.size == wanted.size and np.allclose(array, wanted, rtol=1e-3, atol=1e-3 * size)
        ),
        None,
    )
