"""What happens while llama.cpp computes: signals are read, changed, and handed over in layer order. **Looker**: writes the graph down."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from llmtrace.errors import BackendError
from llmtrace.protocol import Observer, Request
from llmtrace.schema.steps import Step, stage_of
from llmtrace_llamacpp.graph import Graph, Vertex
from llmtrace_llamacpp.node import Node
from llmtrace_llamacpp.signals import put, signal
from llmtrace_llamacpp.sites import Place


class Looker:
    """A watcher that reads nothing, and writes down what is computed from what."""

    def __init__(self) -> None:
        self._vertices: list[Vertex] = []
        self._at: dict[int, int] = {}

    def wants(self, index: int, node: Node) -> bool:
        """Write it down."""
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
    """A watcher that hands a request's signals to an observer, and makes its edits."""

    def __init__(
        self,
        graph: Graph,
        places: Mapping[str, Place],
        steps: Mapping[str, Step],
        request: Request,
        observer: Observer,
        blocks: int,
    ) -> None:
        self._graph = graph
        self._places = places
        self._steps = steps
        self._request = request
        self._observer = observer
        self._blocks = blocks
        self._done = 0
        self._wanted: dict[int, list[str]] = {}
        for (
            site,
            place,
        ) in (
            places.items()
        ):  # in dataflow order: where two sites are one vertex, an edit of the second leaves the first
            if site in request.edits or (site in request.cuts and site != "logits"):
                self._wanted.setdefault(place.vertex, []).append(site)

    def wants(self, index: int, node: Node) -> bool:
        """Only what was asked for is looked at."""
        if index not in self._wanted:
            return False
        if node.op != self._graph.vertices[index].op:
            raise BackendError(
                f"llama.cpp computes another graph than when the model was opened: node {index} is {node.op}, and was "
                f"{self._graph.vertices[index].op}. Use a build that this version knows."
            )
        return True

    def ready(self, index: int, node: Node) -> None:
        """Hand over, and change, what is here."""
        array = node.read()
        tokens = len(self._request.tokens)
        for site in self._wanted[index]:
            place, step = self._places[site], self._steps[site]
            value = signal(array, place, step, tokens)
            if site in self._request.edits:
                value = value.copy()
                for change in self._request.edits[site]:
                    change.apply(value)
                put(value, array, place, step)
                node.write(array)
            if site in self._request.cuts and site != "logits":
                self._reach(stage_of(site, self._blocks))
                self._observer.signal(site, self._request.cuts[site].apply(value))

    def finish(self, logits: Callable[[], np.ndarray]) -> None:
        """Close what is left, and hand over the logits if they were asked for."""
        self._reach(self._blocks)
        if "logits" in self._request.cuts:
            self._observer.signal("logits", self._request.cuts["logits"].apply(logits()))

    def _reach(self, stage: int) -> None:
        while self._done < min(stage, self._blocks):
            self._observer.layer_done(self._done)
            self._done += 1
