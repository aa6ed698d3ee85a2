"""Calls into a plugin. **Untyped**: an exception that is not one of ours, which a plugin must not raise; a backend's becomes a `BackendError`
that names the backend and the call, that of a method or a viewer a `PluginError`. What an observer raised is passed on unchanged, whatever the backend made of it. Weights are read
on access, long after the model was opened: each reading is a call too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from llmtrace.errors import BackendError, LLMTraceError, PluginError, SchemaViolationError
from llmtrace.protocol import Observer, Request, SupportsMany, TraceSession
from llmtrace.schema.sites import Array


@contextmanager
def calling(backend: str, call: str) -> Iterator[None]:
    """Around a call into `backend`. Raises `BackendError` for an untyped exception."""
    try:
        yield
    except (LLMTraceError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything
        raise BackendError(
            f"The backend {backend} failed in {call}: {type(error).__name__}: {error}. That is a fault of the backend or of its runtime: "
            f"report it to its author."
        ) from error


@contextmanager
def calling_plugin(who: str, call: str) -> Iterator[None]:
    """Around a call into a method or a viewer; `who` names it with its distribution. Raises `PluginError` for an untyped exception."""
    try:
        yield
    except (LLMTraceError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # as above
        raise PluginError(
            f"{who} failed in {call}: {type(error).__name__}: {error}. That is a fault of the plugin: report it to its author."
        ) from error


class ReadWeights(Mapping[str, Array]):
    """A session's weights. What reading one raises untyped becomes a `BackendError` that names the weight and the backend."""

    def __init__(self, backend: str, weights: Mapping[str, Array]) -> None:
        self.backend = backend
        self._weights = weights

    def __getitem__(self, name: str) -> Array:
        """Read one. Raises `KeyError` for one that is not among them, `BackendError`, and typed errors of the backend as they are."""
        try:
            return self._weights[name]
        except (LLMTraceError, MemoryError):
            raise
        except (Exception, SystemExit) as error:  # a stranger's code may raise anything
            if isinstance(error, KeyError) and name not in self._weights:
                raise
            raise BackendError(
                f"The backend {self.backend} could not read the weight {name}: {type(error).__name__}: {error}. Its file may have changed "
                "since it was opened: open the model again."
            ) from error

    def __contains__(self, name: object) -> bool:
        """Without reading it."""
        return name in self._weights

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def run(session: TraceSession, request: Request, observer: Observer) -> None:
    """`session.run`. Raises `BackendError`, and what `observer` raised as it was."""
    _watched(session, "run", [observer], lambda watched: session.run(request, watched[0]))


def run_many(session: SupportsMany, requests: Sequence[Request], observers: Sequence[Observer]) -> None:
    """`session.run_many`. Raises as `run`."""
    _watched(session, "run_many", observers, lambda watched: session.run_many(requests, watched))


def _watched(
    session: TraceSession | SupportsMany,
    call: str,
    observers: Sequence[Observer],
    go: Callable[[Sequence[_Watched]], None],
) -> None:
    backend = getattr(session, "info").backend  # noqa: B009  every session has it, and the protocol of an ability does not say so
    watched = [_Watched(backend, observer) for observer in observers]
    failure: BaseException | None = None
    try:
        with calling(backend, call):
            go(watched)
    # raised below, outside of this block, so that the observer's own gets no context that it had not
    except Exception as error:
        failure = error
    failure = next((each.raised for each in watched if each.raised is not None), failure)
    if failure is not None:
        raise failure


class _Watched:
    """Passes signals on, and remembers what the observer raised; after that it takes no more."""

    def __init__(self, backend: str, observer: Observer) -> None:
        self._backend = backend
        self._observer = observer
        self.raised: BaseException | None = None

    def signal(self, site: str, array: Any) -> None:
        """Pass it on, if it is an array."""
        if not isinstance(array, np.ndarray):
            kind = type(array).__name__
            raise SchemaViolationError(
                f"The backend {self._backend} handed over {site} as {kind} instead of a NumPy array."
            )
        self._pass(lambda: self._observer.signal(site, array))

    def layer_done(self, layer: int) -> None:
        """Pass it on."""
        self._pass(lambda: self._observer.layer_done(layer))

    def _pass(self, call: Callable[[], None]) -> None:
        if self.raised is not None:
            raise self.raised
        try:
            call()
        except BaseException as error:
            self.raised = error
            raise
