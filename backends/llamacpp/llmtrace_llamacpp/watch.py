"""Watching a graph while llama.cpp computes it. **Watcher**: who is asked for each node, and is shown those that it wants. **Run**: one
computation of the whole graph; a prompt longer than `n_ubatch` needs several, and the indices of its nodes begin anew in each.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Protocol

from llmtrace.errors import BackendError
from llmtrace_llamacpp.abi import EVAL, Api
from llmtrace_llamacpp.node import Node, Pass

MAGIC = 0x11E17
"""What the library hands back to us with each call: a sign that the callback was put where it belongs."""


class Watcher(Protocol):
    """Watches a graph while it is computed. What it raises stops the pass, and leaves `decode` unchanged."""

    def wants(self, index: int, node: Node) -> bool:
        """Whether to be shown this node when it is ready. Called for every node, in order; only leaves may be read."""

    def ready(self, index: int, node: Node) -> None:
        """The node has been computed: read it, or write it."""


class Calls:
    """What the library calls for each node. Nothing is raised into C: an error is kept, and the graph stopped."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.function = EVAL(self._call)
        self._watcher: Watcher | None = None
        self._pass = Pass(api)
        self._begin()

    def _begin(self) -> None:
        self.error: BaseException | None = None
        """What the watcher raised, or what is wrong with the calls."""
        self.runs = 0
        """Runs of the graph begun."""
        self._index = -1
        self._op = -1
        self._first: tuple[str, ...] = ()

    @contextmanager
    def watched_by(self, watcher: Watcher | None) -> Iterator[None]:
        """For the time of one pass, pass calls on to the watcher."""
        self._begin()
        self._watcher, self._pass = watcher, Pass(self._api)
        try:
            with self._interrupted():
                yield
        finally:
            self._pass.live = False
            self._watcher = None

    @contextmanager
    def _interrupted(self) -> Iterator[None]:
        """Keep the interrupt that comes while C computes: Python raises it as `_call` is entered, before anything there could catch it, and
        ctypes prints it and goes on.
        """
        if current_thread() is not main_thread():  # signals come to that one
            yield
            return
        others = sys.unraisablehook

        def escaped(what: sys.UnraisableHookArgs) -> None:
            place = what.exc_traceback
            if place is not None and place.tb_frame.f_code is Calls._call.__code__:
                self.error = what.exc_value
            else:
                others(what)

        sys.unraisablehook = escaped
        try:
            yield
        finally:
            sys.unraisablehook = others

    def taken(self) -> BaseException:
        """The error, to be raised: it is not kept."""
        error, self.error = self.error, None
        return error if error is not None else BackendError("nothing was raised")

    def _call(self, address: int, ask: bool, user_data: int | None) -> bool:
        watcher = self._watcher
        if self.error is not None:
            return ask  # wanted, to be refused when it is ready: that stops the graph
        if watcher is None:
            return False
        try:
            _check(user_data)
            node = Node(address, self._pass)
            if ask:
                self._count(node)
                return bool(watcher.wants(self._index, node))
            self._pass.ready = address
            try:
                watcher.ready(self._index, node)
            finally:
                self._pass.ready = None
            return True
        except BaseException as error:  # an interrupt too: it goes on when the library has returned
            self.error = error
            return ask

    def _count(self, node: Node) -> None:
        """The graph begins anew with the node that it began with: no two nodes of one graph do the same to the same."""
        op = node.tensor.op
        if self._index < 0 or (op == self._op and self._sign(node) == self._first):
            self._op, self._first, self._index = op, self._sign(node), -1
            self._pass.run = self.runs
            self.runs += 1
        self._index += 1

    @staticmethod
    def _sign(node: Node) -> tuple[str, ...]:
        return (node.name, *(source.name if source else "" for source in node.sources))


def _check(user_data: int | None) -> None:
    if user_data != MAGIC:
        raise BackendError("llama.cpp calls back with what was not given to it: its build is not laid out as known.")
