"""Finds plugins and keeps what they bring. **Plugin**: a module named by an entry point of the group `llmtrace`.

One broken plugin is reported and the rest work. What the core itself brings comes the same way, through an entry point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import TYPE_CHECKING, Any, Literal

import pluggy
from attrs import frozen

from llmtrace import hookspecs
from llmtrace.brought import Kind, fault, name_of
from llmtrace.errors import (
    BackendNotFoundError,
    DuplicateBackendError,
    LLMTraceError,
    PluginLoadError,
    UnknownMethodError,
    suggest,
)

if TYPE_CHECKING:
    from llmtrace.influence.method import Method
    from llmtrace.protocol import TraceBackend
    from llmtrace.view.viewer import Viewer

GROUP = "llmtrace"
HOOKS: dict[Kind, str] = {
    "backend": "llmtrace_backends",
    "influence method": "llmtrace_influence_methods",
    "viewer": "llmtrace_viewers",
}
"""Which hook brings what."""


@frozen
class BackendEntry:
    """A backend, or the remains of one: what `llmtrace backends` prints."""

    name: str
    """What `--backend` calls it."""
    distribution: str
    """What was installed to bring it."""
    version: str
    """Of the distribution."""
    status: Literal["ok", "broken"]
    """Whether it can be used."""
    reason: str = ""
    """Why it is broken."""
    backend: type[TraceBackend] | None = None
    """Its class; None where it could not be imported."""


@frozen
class Plugins:
    """All that was found, and what was wrong with the rest."""

    backends: Mapping[str, BackendEntry]
    """By name, broken ones too."""
    methods: Mapping[str, Method]
    """Influence methods by name."""
    viewers: Mapping[str, type[Viewer]]
    """By name."""
    errors: tuple[LLMTraceError, ...]
    """What could not be loaded, and why."""

    def backend(self, name: str) -> type[TraceBackend]:
        """A working backend. Raises `BackendNotFoundError`, with near names or with what is broken."""
        entry = self.backends.get(name)
        if entry is None:
            known = ", ".join(sorted(self.backends))
            raise BackendNotFoundError(
                f"No backend is named {name!r}; installed are {known}.{suggest(name, self.backends)}"
            )
        if entry.backend is None or entry.status == "broken":
            raise BackendNotFoundError(f"The backend {name!r} of {entry.distribution} is broken: {entry.reason}.")
        return entry.backend

    def method(self, name: str) -> Method:
        """An influence method. Raises `UnknownMethodError` with near names."""
        if name not in self.methods:
            known = ", ".join(sorted(self.methods))
            raise UnknownMethodError(
                f"No influence method is named {name!r}; there are {known}.{suggest(name, self.methods)}"
            )
        return self.methods[name]

    def viewer(self, name: str) -> type[Viewer]:
        """A viewer. Raises `UnknownMethodError` with near names."""
        if name not in self.viewers:
            known = ", ".join(sorted(self.viewers))
            raise UnknownMethodError(f"No viewer is named {name!r}; there are {known}.{suggest(name, self.viewers)}")
        return self.viewers[name]


@lru_cache(maxsize=1)
def plugins() -> Plugins:
    """Everything that is installed; looked for once a process."""
    return load(tuple(entry_points(group=GROUP)))


def load(entries: tuple[EntryPoint, ...]) -> Plugins:
    """Import the plugins that the entry points name, and ask each what it brings."""
    errors: list[LLMTraceError] = []
    broken: list[BackendEntry] = []
    backends: dict[str, BackendEntry] = {}
    methods: dict[str, Method] = {}
    viewers: dict[str, type[Viewer]] = {}
    owners: dict[tuple[str, str], str] = {}
    for entry in sorted(entries, key=lambda e: e.name):
        where = f"{entry.value} of {entry.dist.name if entry.dist else 'an unknown distribution'}"
        distribution, release = (entry.dist.name, entry.dist.version) if entry.dist else ("", "")

        def report(name: str, reason: str, of: tuple[str, str] = (distribution, release)) -> None:
            broken.append(BackendEntry(name, *of, "broken", reason))

        try:
            hook = _register(entry)
        except (Exception, SystemExit) as error:  # a stranger's module must not take the others with it
            errors.append(PluginLoadError(f"The plugin {where} could not be loaded: {type(error).__name__}: {error}"))
            report(entry.name, str(errors[-1]))
            continue
        for backend, failure in _ask(where, "backend", hook.llmtrace_backends, errors):
            if failure is not None:
                report(name_of(backend) or entry.name, str(failure))
            elif _unique(backend.name, where, owners, "backend", errors):
                backends[backend.name] = _entry(backend, distribution, release)
        for method, failure in _ask(where, "influence method", hook.llmtrace_influence_methods, errors):
            if failure is None and _unique(method.name, where, owners, "influence method", errors):
                methods[method.name] = method
        for viewer, failure in _ask(where, "viewer", hook.llmtrace_viewers, errors):
            if failure is None and _unique(viewer.name, where, owners, "viewer", errors):
                viewers[viewer.name] = viewer
    backends |= {entry.name: entry for entry in broken if entry.name not in backends}
    return Plugins(backends, methods, viewers, tuple(errors))


def _register(entry: EntryPoint) -> pluggy.HookRelay:
    """A manager of its own for each plugin, so that a broken one spoils no other's answers."""
    manager = pluggy.PluginManager("llmtrace")
    manager.add_hookspecs(hookspecs)
    manager.register(entry.load(), name=entry.name)
    manager.check_pending()
    return manager.hook


def _ask(
    where: str, kind: Kind, hook: Callable[[], list[Sequence[Any]]], errors: list[LLMTraceError]
) -> list[tuple[Any, LLMTraceError | None]]:
    """What one hook of one plugin answers, each with what is wrong with it; a hook that fails answers with nothing but that."""
    name = HOOKS[kind]
    try:
        answer = [item for items in hook() for item in items]
    except (Exception, SystemExit) as error:  # as above
        errors.append(PluginLoadError(f"The hook {name} of {where} failed: {type(error).__name__}: {error}"))
        return [(None, errors[-1])]
    found: list[tuple[Any, LLMTraceError | None]] = []
    for item in answer:
        wrong = fault(kind, item)
        failure = PluginLoadError(f"The {kind} {_shown(item)} of {where} ({name}) {wrong}") if wrong else None
        errors += [failure] if failure else []
        found.append((item, failure))
    return found


def _shown(item: object) -> str:
    """Its name, else its class's: a stranger's repr may raise."""
    return (
        repr(name_of(item))
        if name_of(item)
        else item.__name__
        if isinstance(item, type)
        else f"({type(item).__name__})"
    )


def _unique(name: str, where: str, owners: dict[tuple[str, str], str], kind: str, errors: list[LLMTraceError]) -> bool:
    """Enter the owner of a name; the second to claim it is told of the first."""
    if owner := owners.get((kind, name)):
        errors.append(
            DuplicateBackendError(
                f"The {kind} {name!r} of {where} is already taken by {owner}, which is used: uninstall one of them."
            )
        )
        return False
    owners[kind, name] = where
    return True


def _entry(backend: type[TraceBackend], distribution: str, release: str) -> BackendEntry:
    missing = [name for name in backend.distributions if not _installed(name)]
    reason = (
        f"it needs {', '.join(missing)}, which is not installed: pip install {' '.join(missing)}" if missing else ""
    )
    return BackendEntry(backend.name, distribution, release, "broken" if missing else "ok", reason, backend)


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
