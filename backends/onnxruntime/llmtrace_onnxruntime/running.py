"""Runs of one graph. **Declared**: the outputs that the file has; **added**: values of the graph that a run hands out besides.

A session is made for each set of added outputs, since ONNX Runtime must know them before it rewrites the graph; a few are kept. Without
prepacking they share their weights, and cost a few milliseconds and no memory to speak of.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TypeAlias, TypeVar

import onnx
from attrs import evolve

from llmtrace.errors import BackendError, ModelOpenError, shown
from llmtrace.schema.sites import Array
from llmtrace_onnxruntime.options import OnnxRuntimeOptions
from llmtrace_onnxruntime.piece import Cutter
from llmtrace_onnxruntime.proto import Loaded
from llmtrace_onnxruntime.sessions import Session, Shared, settings_of

Piece: TypeAlias = Callable[[Mapping[str, Array]], dict[str, Array]]
"""From the values that it is given, by name, to those that are wanted."""
Key = TypeVar("Key")
MOST, MOST_PREPACKED, MOST_PIECES = 8, 2, 128
"""Sessions that are kept: where they share their weights, where each has its own, and of pieces."""


class Runner:
    """A graph, and the sessions in which it was run."""

    def __init__(
        self,
        loaded: Loaded,
        options: OnnxRuntimeOptions,
        *,
        proto: onnx.ModelProto | None = None,
        shared: Shared | None = None,
    ) -> None:
        """`proto` is what to run instead of the file's graph: the same with nodes added; `shared` the weights of another runner."""
        self.loaded = loaded
        self.options = options
        self.proto = loaded.proto if proto is None else proto
        self.shared = Shared(loaded) if shared is None else shared
        self._sessions: OrderedDict[frozenset[str], Session] = OrderedDict()
        self._pieces: OrderedDict[object, Session] = OrderedDict()
        self._open = True
        self._refresh()

    @property
    def settings(self) -> dict[str, str]:
        """What changes numbers, as text."""
        return settings_of(self.options)

    def other(self, proto: onnx.ModelProto) -> Runner:
        """A runner of a changed graph, on the same weights."""
        return Runner(self.loaded, self.options, proto=proto, shared=self.shared)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """The values of some outputs, declared or added, by name. Arrays are ONNX Runtime's own memory, and keep it.

        Raises `BackendError` for a run that fails or a name that no node makes, `ModelOpenError` for a graph that is refused or closed.
        """
        wanted = list(dict.fromkeys(outputs))
        return self._session(wanted).run(feeds, wanted)

    def subgraph(self, inputs: Sequence[str], outputs: Sequence[str]) -> Piece:
        """A piece of the graph: a function from values of `inputs` to those of `outputs`, of any lengths and of the types that are given.

        Graph optimisation is off in pieces. What is wrong with one is raised when it is called: `BackendError` for an output that needs
        more than these inputs, and for a run that fails.
        """
        names, wanted = list(dict.fromkeys(inputs)), list(dict.fromkeys(outputs))

        def call(given: Mapping[str, Array]) -> dict[str, Array]:
            arrays = {name: given[name] for name in names}
            key = (*((name, array.dtype.name, array.ndim) for name, array in arrays.items()), None, *wanted)
            session = _kept(self._pieces, key, MOST_PIECES, lambda: self._piece(arrays, wanted))
            return session.run(arrays, wanted)

        return call

    def open(self, outputs: Sequence[str] = ()) -> None:
        """Make the session for some outputs now, so that what is wrong with the graph is raised now."""
        self._session(list(outputs))

    def close(self) -> None:
        """Let go of all sessions."""
        self._open = False
        self._sessions.clear()
        self._pieces.clear()

    def _refresh(self) -> None:
        self._declared = {value.name for value in self.proto.graph.output}
        self._made = {name for node in self.proto.graph.node for name in node.output if name}

    def _session(self, outputs: Sequence[str]) -> Session:
        for name in outputs:
            if name not in self._made | self._declared:
                raise BackendError(f"{self.loaded.path} has no value {shown(name)} that a node makes.")
        added = frozenset(outputs) - self._declared
        most = MOST_PREPACKED if self.options.prepacking else MOST
        return _kept(self._sessions, added, most, lambda: self._make(added))

    def _make(self, added: frozenset[str]) -> Session:
        self._check_open()
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(added))
        return Session(proto, self.loaded, self.options, self.shared, what=str(self.loaded.path))

    def _piece(self, given: Mapping[str, Array], outputs: Sequence[str]) -> Session:
        self._check_open()
        options = evolve(self.options, optimization="off", prepacking=False, threads=1)
        what = f"the part of {self.loaded.path} that makes {shown(outputs[0])}"
        return Session(self._cutter.piece(given, outputs), self.loaded, options, self.shared, what=what)

    @cached_property
    def _cutter(self) -> Cutter:
        return Cutter(self.proto)

    def _check_open(self) -> None:
        if not self._open:
            raise ModelOpenError(f"{self.loaded.path} is closed: open it again.")


def _kept(cache: OrderedDict[Key, Session], key: Key, most: int, make: Callable[[], Session]) -> Session:
    """The session of a key, made if it is not there; the one that was used longest ago makes room for it."""
    if key not in cache:
        while len(cache) >= most:
            cache.popitem(last=False)
        cache[key] = make()
    cache.move_to_end(key)
    return cache[key]
