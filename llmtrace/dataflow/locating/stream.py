"""What comes to a branch past the stream. **Walk**: back from the logits along the stream, from each sum to the term that the stream is,
through factors, biases and norms on it; a branch ends in a matrix, so that no walk goes into one. **Beside**: content that a branch reads,
or a sum adds, and that does not come from the point of the stream that the branch reads: embeddings of the tokens' own, what an earlier
block made, an earlier point. It does not count as content there, so that the stream is still the way on which everything comes.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from llmtrace.dataflow.graph import Flow, Vertex
from llmtrace.dataflow.segments import MOVES, SUMS, kind_of

SPREADING = frozenset({"Expand", "Tile", "Concat"})
"""Operators that make one stream several."""
ALONG = MOVES | {"Mul", "Div", "Add", "LayerNormalization", "RMSNormalization"}
"""Operators that may stand before that."""


@frozen(eq=False)
class Walk:
    """The stream back from a value."""

    sums: int
    """How many there are before it."""
    point: str
    """The value itself."""
    vertex: Vertex | None = None
    """A sum that makes it."""
    before: Walk | None = None
    """From the value that it is made of; None where the walk ends."""

    @property
    def begins(self) -> str:
        """The last sum before, or what enters the stream."""
        walk = self
        while walk.vertex is None and walk.before is not None:
            walk = walk.before
        return walk.point


def beside(flow: Flow, row: str, logits: str) -> Mapping[int, frozenset[str]]:
    """Vertices by index to what they read that comes past the stream; nothing where there is no such thing, or no stream."""
    walk = _Walks(flow, row).of(_last(flow, logits))
    found: dict[int, set[str]] = {}
    late: list[tuple[Vertex, str]] = []
    while walk is not None:
        terms, walk = _added(flow, walk)
        point = walk.begins if walk is not None else row
        for vertex, term in terms:
            if flow.follows(term, point):
                _past(flow, term, point, found)
            else:
                late.append((vertex, term))
    for vertex, term in late:
        found.setdefault(vertex.index, set()).add(term)
    return {index: frozenset(names) for index, names in found.items()}


def _added(flow: Flow, walk: Walk) -> tuple[list[tuple[Vertex, str]], Walk | None]:
    """What is added to the stream at the last point of a walk, and the walk before: sums of which each is only there for the next are one point."""
    here: Walk | None = walk
    terms: list[tuple[Vertex, str]] = []
    while here is not None and here.vertex is not None and here.before is not None:
        terms += [(here.vertex, term) for term in flow.reads(here.vertex) if term != here.before.point]
        before = here.before
        if before.vertex is None or flow.graph.readers[before.point] != [here.vertex]:
            return terms, before
        here = before
    return terms, here.before if here is not None else None


def _last(flow: Flow, logits: str) -> str:
    """Back from the logits to the last sum of content, through whatever stands between."""
    name = logits
    while (vertex := flow.graph.maker.get(name)) is not None and (content := set(flow.reads(vertex))):
        nearest = _nearest(flow, content)
        if nearest is None or (len(content) > 1 and vertex.op in SUMS):
            break
        name = nearest
    return name


def _nearest(flow: Flow, content: set[str]) -> str | None:
    """The value among some that all others follow from."""
    first = min(content, key=flow.order)
    return first if all(flow.follows(name, first) for name in content) else None


def _past(flow: Flow, term: str, point: str, found: dict[int, set[str]]) -> None:
    """What a branch reads that does not follow from the point of the stream that it reads."""
    waiting, seen = [term], {point}
    while waiting:
        name = waiting.pop()
        vertex = flow.graph.maker.get(name)
        if name in seen or vertex is None:
            continue
        seen.add(name)
        for read in flow.reads(vertex):
            if flow.follows(read, point):
                waiting.append(read)
            else:
                found.setdefault(vertex.index, set()).add(read)


class _Walks:
    """The walks back from values to the looked-up row."""

    def __init__(self, flow: Flow, row: str) -> None:
        self._flow = flow
        self._row = row
        self._known: dict[str, Walk | None] = {row: Walk(0, row)}

    def of(self, name: str) -> Walk | None:
        """The walk with most sums; None where none leads to the row."""
        waiting = [name]
        while waiting:
            here = waiting[-1]
            if here in self._known:
                waiting.pop()
                continue
            vertex, terms = self._terms(here)
            if missing := [term for term in terms if term not in self._known]:
                waiting += missing
                continue
            walks = [walk for term in terms if (walk := self._known[term]) is not None]
            best = max(walks, key=lambda walk: (walk.sums, -self._flow.order(walk.point)), default=None)
            summed = len(terms) > 1
            self._known[here] = best and Walk(best.sums + summed, here, vertex if summed else None, best)
            waiting.pop()
        return self._known[name]

    def _terms(self, name: str) -> tuple[Vertex | None, tuple[str, ...]]:
        """What a value may be the stream of: the terms of a sum, what a factor, a bias or a norm is applied to, or nothing."""
        vertex = self._flow.graph.maker.get(name)
        content = set(self._flow.reads(vertex)) if vertex is not None else set()
        if vertex is None or not content:
            return None, ()
        if len(content) > 1 and vertex.op in SUMS:
            return vertex, tuple(sorted(content, key=self._flow.order))
        nearest = _nearest(self._flow, content)
        if nearest is None:
            return None, ()
        way = tuple(self._flow.between(nearest, name))
        return vertex, (nearest,) if kind_of(self._flow, way) in ("move", "scale", "add", "norm") else ()


def several(flow: Flow, row: str, logits: str) -> int:
    """Into how many streams what enters is spread, as hyper-connections do; nought where it is one. What is spread is all that goes on, or no
    sum leads back to the row.
    """
    size = flow.graph.size(row)
    astray = _Walks(flow, row).of(_last(flow, logits)) is None
    goes_on = set() if astray else set(flow.chain(row, logits))
    waiting, seen = [row], {row}
    while waiting and size:
        name = waiting.pop()
        for vertex in flow.graph.readers.get(name, []):
            made = vertex.makes[0]
            wider, rest = divmod(flow.graph.size(made), size)
            if vertex.op in SPREADING and wider > 1 and not rest and (astray or made in goes_on):
                return wider
            if made in flow and made not in seen and vertex.op in ALONG:
                seen.add(made)
                waiting.append(made)
    return 0
