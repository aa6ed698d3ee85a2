"""What happens while llama.cpp computes: signals are read, changed, and handed over in layer order. **Looker**: writes the graph down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from llmtrace.errors import BackendError
from llmtrace.protocol import Observer, Request
from llmtrace.schema.steps import Step, stage_of
from llmtrace_llamacpp.graph import Graph, Vertex
from llmtrace_llamacpp.node import Node
from llmtrace_llamacpp.pieces import Pieces, changed, concerns
from llmtrace_llamacpp.signals import put, signal
from llmtrace_llamacpp.sites import Place


class Looker:
    """A watcher that reads nothing, and writes down what is computed from what."""

    def __init__(self) -> None:
        self._vertices: list[Vertex] = []
        self._at: dict[int, int] = {}

    def wants(self, index: int, node: Node) -> bool:
        """Write it down, once: a second run of the graph is the same."""
        if node.run:
            return False
        reads = tuple(self._at.get(source.address, source.name) for source in node.sources if source is not None)
        self._vertices.append(Vertex(index, node.op, node.name, node.shape, node.op_params, reads))
        self._at[node.address] = index
        return False

    def ready(self, index: int, node: Node) -> None:
        """Nothing was wanted."""

    @property
    def graph(self) -> Graph:
        """All that was seen."""
        return Graph(tuple(self._vertices))


class Capture:
    """A watcher that hands a request's signals to an observer, and makes its edits.

    Of a prompt that needs several runs of the graph, what is wanted is held until the last one, and handed over then.
    """

    def __init__(
        self,
        graph: Graph,
        places: Mapping[str, Place],
        steps: Mapping[str, Step],
        request: Request,
        observer: Observer,
        blocks: int,
        runs: Sequence[range],
    ) -> None:
        """`runs` are the positions that each run of the graph computes."""
        self._graph = graph
        self._places = places
        self._steps = steps
        self._request = request
        self._observer = observer
        self._runs = runs
        self._blocks = blocks
        self._done = 0
        self._held: dict[str, Pieces] = {}
        self._wanted: dict[int, list[str]] = {}
        # in dataflow order: where two sites are one vertex, an edit of the second leaves the first
        for site, place in places.items():
            if site in request.edits or (site in request.cuts and site != "logits"):
                self._wanted.setdefault(place.vertex, []).append(site)

    def wants(self, index: int, node: Node) -> bool:
        """Only what was asked for is looked at."""
        sites = self._wanted.get(index)
        if sites is None or not any(self._matters(site, node.run) for site in sites):
            return False
        if node.op != self._graph.vertices[index].op:
            raise BackendError(
                f"llama.cpp computes another graph than when the model was opened: node {index} is {node.op}, and was "
                f"{self._graph.vertices[index].op}. Use a build that this version knows."
            )
        return True

    def _matters(self, site: str, run: int) -> bool:
        return (
            run == len(self._runs) - 1
            or site in self._request.edits
            or concerns(self._request.cuts[site], self._steps[site], self._runs[run])
        )

    def ready(self, index: int, node: Node) -> None:
        """Hand over, and change, what is here."""
        array, rows, tokens = node.read(), self._runs[node.run], len(self._request.tokens)
        for site in self._wanted[index]:
            place, step = self._places[site], self._steps[site]
            value = signal(array, place, step, rows)
            if site in self._request.edits:
                value = changed(value, rows, step, tokens, tuple(self._request.edits[site]))
                put(value, array, place, step, rows)
                node.write(array)
            if site in self._request.cuts and site != "logits":
                self._hand(site, value, node.run)

    def _hand(self, site: str, value: np.ndarray, run: int) -> None:
        """Over to the observer, or into what is held for it."""
        cut, step = self._request.cuts[site], self._steps[site]
        last = run == len(self._runs) - 1
        if len(self._runs) > 1:
            if site not in self._held:
                self._held[site] = Pieces.empty(cut, step, len(self._request.tokens), value.dtype)
            self._held[site].put(value, self._runs[run])
        if last:
            self._reach(stage_of(site, self._blocks))
            self._observer.signal(site, self._held.pop(site).array if len(self._runs) > 1 else cut.apply(value))

    def finish(self, logits: Callable[[], np.ndarray]) -> None:
        """Close what is left, and hand over the logits if they were asked for."""
        self._reach(self._blocks)
        if "logits" in self._request.cuts:
            self._observer.signal("logits", self._request.cuts["logits"].apply(logits()))

    def _reach(self, stage: int) -> None:
        while self._done < min(stage, self._blocks):
            self._observer.layer_done(self._done)
            self._done += 1
