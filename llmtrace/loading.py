"""Imports plugins and asks each what it brings: what can be used, and what is wrong with the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib.metadata import EntryPoint, PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import pluggy
from attrs import evolve, frozen

from llmtrace import hookspecs
from llmtrace.brought import Kind, fault, foreign, name_of, older_of
from llmtrace.errors import DuplicateBackendError, LLMTraceError, PluginLoadError, SchemaVersionError
from llmtrace.plugins import BY_NAME, KITS, UNKNOWN, BackendEntry, BrokenPlugin, Plugins

if TYPE_CHECKING:
    from llmtrace.protocol import TraceBackend
    from llmtrace.view.viewer import Viewer

HOOKS: dict[Kind, str] = {
    "backend": "llmtrace_backends",
    "influence method": "llmtrace_influence_methods",
    "viewer": "llmtrace_viewers",
    "hypothesis": "llmtrace_hypotheses",
    "motif": "llmtrace_motifs",
}
"""Which hook brings what, in the order in which they are asked."""
PREFIX = "llmtrace_"
"""Of every hook's name."""
TAKEN = "uninstall one of them"
CORE = "llmtrace-core"
"""What the core itself brings comes first, so that nobody takes its names."""


def load(entries: tuple[EntryPoint, ...]) -> Plugins:
    """Import the plugins that the entry points name, and ask each what it brings."""
    found = _Found()
    known = [_Source(entry, *_owner(entry)) for entry in entries]
    for source in sorted(known, key=lambda each: (each.distribution != CORE, each.plugin)):
        found.ask(source)
    return found.plugins()


@frozen
class _Source:
    """One plugin, and who brings it."""

    entry: EntryPoint
    distribution: str
    version: str

    @property
    def plugin(self) -> str:
        return self.entry.name

    @property
    def where(self) -> str:
        """For a sentence."""
        return f"{self.entry.value} of {self.distribution or UNKNOWN}"

    def broken(self, name: str, error: LLMTraceError, backend: type[TraceBackend] | None = None) -> BackendEntry:
        """The remains of a backend."""
        return BackendEntry(name, self.distribution, self.version, "broken", str(error), backend)


class _Found:
    """What the plugins that were asked so far have brought."""

    def __init__(self) -> None:
        self._brought: dict[Kind, dict[str, Any]] = {kind: {} for kind in HOOKS}
        self._remains: list[BackendEntry] = []
        self._errors: list[LLMTraceError] = []
        self._broken: list[BrokenPlugin] = []
        self._owners: dict[tuple[str, str], str] = {}
        self._origins: dict[tuple[Kind, str], str] = {}

    def ask(self, source: _Source) -> None:
        """Import one plugin, and take what can be used of it."""
        try:
            hook = _register(source.entry)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a stranger's module must not take the others with it, whatever it raises
            failure = PluginLoadError(f"The plugin {source.where} could not be loaded: {type(error).__name__}: {error}")
            self._report(source, failure, "", _missing(error, source.distribution))
            self._remains.append(source.broken(source.plugin, failure))
            return
        for kind, name in HOOKS.items():
            for item, wrong in _ask(source.where, kind, getattr(hook, name)):
                if wrong is not None:
                    self._report(source, wrong, name)
                    if kind == "backend":
                        self._remains.append(source.broken(name_of(item) or source.plugin, wrong))
                elif kind == "backend" and (strange := self._foreign(source, item)):
                    self._remains.append(strange)
                elif taken := _taken(item.name, source.where, self._owners, kind):
                    self._report(source, taken, name, TAKEN)
                else:
                    self._take(source, kind, item, hook)

    def _take(self, source: _Source, kind: Kind, item: Any, hook: pluggy.HookRelay) -> None:
        if kind == "backend":
            entry = _entry(item, source.distribution, source.version)
            self._brought[kind][item.name] = evolve(entry, kits=getattr(hook, KITS), plugin=source.plugin)
            return
        if kind == "viewer" and (clash := _clash(item, source.where, self._owners)):
            self._report(source, clash, HOOKS[kind], f"{BY_NAME} {item.name}, or {TAKEN}")
        self._brought[kind][item.name] = item
        self._origins[kind, item.name] = source.distribution

    def _foreign(self, source: _Source, backend: type[TraceBackend]) -> BackendEntry | None:
        """The remains of a backend that was made for another schema."""
        if not (other := foreign(backend)):
            return None
        strange = SchemaVersionError(f"The backend {backend.name!r} of {source.where} {other}")
        self._report(source, strange, HOOKS["backend"], f"upgrade {older_of(backend, source.distribution)}")
        return source.broken(backend.name, strange, backend)

    def _report(self, source: _Source, error: LLMTraceError, hook: str, fix: str = "") -> None:
        self._errors.append(error)
        fix = fix or f"upgrade {source.distribution or 'it'} or uninstall it, and tell its author"
        self._broken.append(BrokenPlugin(source.plugin, source.distribution, source.version, hook, str(error), fix))

    def plugins(self) -> Plugins:
        """All of it; a name that works stands before what remains of another."""
        backends = self._brought["backend"]
        return Plugins(
            backends | {entry.name: entry for entry in self._remains if entry.name not in backends},
            self._brought["influence method"],
            self._brought["viewer"],
            tuple(self._errors),
            tuple(self._broken),
            self._origins,
            self._brought["hypothesis"],
            self._brought["motif"],
        )


def _owner(entry: EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution that brings it; empty where nobody knows, or its metadata cannot be read."""
    try:
        return (entry.dist.name or "", entry.dist.version or "") if entry.dist else ("", "")
    except Exception:  # damaged metadata
        return "", ""


def _missing(error: BaseException, distribution: str) -> str:
    """What to do where an import failed for want of another module."""
    absent = error.name if isinstance(error, ModuleNotFoundError) else None
    return f"install {absent}, which it imports, or uninstall {distribution or 'it'}" if absent else ""


def _register(entry: EntryPoint) -> pluggy.HookRelay:
    """A manager of its own for each plugin, so that a broken one spoils no other's answers."""
    manager = pluggy.PluginManager("llmtrace")
    manager.add_hookspecs(hookspecs)
    manager.register(entry.load(), name=entry.name)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise pluggy.PluginValidationError(error.plugin, f"{error}{_meant(str(error))}") from error
    return manager.hook


def _meant(message: str) -> str:
    """The hook that is nearest to the unknown one in pluggy's message; what all hooks begin with says nothing."""
    names = {hook.removeprefix(PREFIX): hook for hook in (*HOOKS.values(), KITS)}
    typed = next(iter(re.findall(r"unknown hook '(\w+)'", message)), "").removeprefix(PREFIX)
    near = get_close_matches(typed, names, n=1)
    return f". Did you mean {names[near[0]]}?" if near else f"; there are {', '.join(names.values())}"


def _ask(where: str, kind: Kind, hook: Callable[[], list[Sequence[Any]]]) -> list[tuple[Any, PluginLoadError | None]]:
    """What one hook of one plugin answers, each with what is wrong with it; a hook that fails answers with nothing but that."""
    name = HOOKS[kind]
    try:
        answer = [item for items in hook() for item in items]
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # as above
        return [(None, PluginLoadError(f"The hook {name} of {where} failed: {type(error).__name__}: {error}"))]
    found: list[tuple[Any, PluginLoadError | None]] = []
    for item in answer:
        wrong = fault(kind, item)
        found.append(
            (item, PluginLoadError(f"The {kind} {_shown(item)} of {where} ({name}) {wrong}") if wrong else None)
        )
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


def _taken(name: str, where: str, owners: dict[tuple[str, str], str], kind: Kind) -> DuplicateBackendError | None:
    """Enter the owner of a name; the second to claim it is told of the first."""
    if owner := owners.get((kind, name)):
        return DuplicateBackendError(
            f"The {kind} {name!r} of {where} is already taken by {owner}, which is used: uninstall one of them."
        )
    owners[kind, name] = where
    return None


def _clash(viewer: type[Viewer], where: str, owners: dict[tuple[str, str], str]) -> DuplicateBackendError | None:
    """Enter the owner of a suffix; the second to claim it is told of the first, and stays."""
    suffix = viewer.suffix.casefold()
    if owner := owners.get(("suffix", suffix)):
        return DuplicateBackendError(
            f"The viewer {viewer.name!r} of {where} claims the suffix {viewer.suffix} of the viewer {owner}, which writes such files"
        )
    owners["suffix", suffix] = f"{viewer.name!r} of {where}"
    return None


def _entry(backend: type[TraceBackend], distribution: str, release: str) -> BackendEntry:
    missing = [name for name in backend.distributions if not installed(name)]
    reason = (
        f"it needs {', '.join(missing)}, which is not installed: pip install {' '.join(missing)}" if missing else ""
    )
    return BackendEntry(backend.name, distribution, release, "broken" if missing else "ok", reason, backend)


def installed(distribution: str) -> bool:
    """Whether a distribution is there, by its metadata."""
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
