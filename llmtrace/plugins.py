"""Finds plugins and keeps what they bring. **Plugin**: a module named by an entry point of the group `llmtrace`.

One broken plugin is reported and the rest work. What the core itself brings comes the same way, through an entry point.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

import pluggy
from attrs import evolve, field, frozen

from llmtrace import hookspecs
from llmtrace.brought import Kind, fault, foreign, name_of, older_of
from llmtrace.errors import (
    BackendNotFoundError,
    DuplicateBackendError,
    LLMTraceError,
    PluginLoadError,
    SchemaVersionError,
    UnknownMethodError,
    suggest,
)

if TYPE_CHECKING:
    from llmtrace.circuits.motif import Motif
    from llmtrace.comparison.case import Hypothesis
    from llmtrace.influence.method import Method
    from llmtrace.protocol import TraceBackend
    from llmtrace.testing.conformance import BackendConformance
    from llmtrace.view.viewer import Viewer

GROUP = "llmtrace"
HOOKS: dict[Kind, str] = {
    "backend": "llmtrace_backends",
    "influence method": "llmtrace_influence_methods",
    "viewer": "llmtrace_viewers",
    "hypothesis": "llmtrace_hypotheses",
    "motif": "llmtrace_motifs",
}
"""Which hook brings what, as soon as plugins are loaded."""
KITS = "llmtrace_conformance"
"""The hook that is asked later, by who checks a backend."""
PREFIX = "llmtrace_"
"""Of every hook's name."""
TAKEN = "uninstall one of them"
CORE = "llmtrace-core"
"""What the core itself brings comes first, so that nobody takes its names."""
UNKNOWN = "an unknown distribution"
BY_NAME = "choose it with --viewer"
"""How the fix of a viewer begins whose suffix another has: it works."""


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
    kits: Callable[[], Sequence[Sequence[type[BackendConformance]]]] = field(default=list, repr=False, eq=False)
    """Asks its plugin for conformance kits (`llmtrace_conformance`); a stranger's code, which imports pytest and may raise."""
    plugin: str = ""
    """The name of its entry point."""


@frozen
class BrokenPlugin:
    """A plugin of which something could not be used, whichever of its hooks it was."""

    plugin: str
    """The name of its entry point."""
    distribution: str
    """What was installed to bring it; empty where nobody knows."""
    version: str
    """Of the distribution."""
    hook: str
    """The hook that failed or answered with what cannot be used; empty where the plugin could not be loaded at all."""
    reason: str
    """What is wrong."""
    fix: str
    """What can be done about it."""

    @property
    def owner(self) -> str:
        """The distribution, for a sentence."""
        return self.distribution or UNKNOWN


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
    broken: tuple[BrokenPlugin, ...] = ()
    """The same by plugin, with what to do."""
    origins: Mapping[tuple[Kind, str], str] = field(factory=dict)
    """By kind and name, the distribution that brought a method, a viewer, a hypothesis or a motif."""
    hypotheses: Mapping[str, Hypothesis] = field(factory=dict)
    """Explanations of a divergence by name, without the core's own."""
    motifs: Mapping[str, Motif] = field(factory=dict)
    """Dependency patterns by name."""

    def owner(self, kind: Kind, name: str) -> str:
        """The distribution that brought it, for a sentence."""
        return self.origins.get((kind, name)) or UNKNOWN

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
                f"No influence method is named {name!r}; there are {known}.{suggest(name, self.methods)}{self._perhaps()}"
            )
        return self.methods[name]

    def motif(self, name: str) -> Motif:
        """A motif. Raises `UnknownMethodError` with near names."""
        if name not in self.motifs:
            known = ", ".join(sorted(self.motifs))
            raise UnknownMethodError(
                f"No motif is named {name!r}; there are {known}.{suggest(name, self.motifs)}{self._perhaps()}"
            )
        return self.motifs[name]

    def viewer(self, name: str) -> type[Viewer]:
        """A viewer. Raises `UnknownMethodError` with near names."""
        if name not in self.viewers:
            known = ", ".join(sorted(self.viewers))
            raise UnknownMethodError(
                f"No viewer is named {name!r}; there are {known}.{suggest(name, self.viewers)}{self._perhaps()}"
            )
        return self.viewers[name]

    def viewer_of(self, file: str) -> str | None:
        """The name of the viewer that writes such a file, told by its suffix in any case: the longest, and of equal ones the first."""
        name = PurePath(file).name.casefold()
        suffixes = {viewer.suffix.casefold(): each for each, viewer in reversed(list(self.viewers.items()))}
        fits = [suffix for suffix in suffixes if name.endswith(suffix) and name != suffix]
        return suffixes[max(fits, key=len)] if fits else None

    def _perhaps(self) -> str:
        """What is not there may be what a broken plugin would have brought."""
        broken = (each for each in self.broken if not each.fix.startswith(BY_NAME))
        said = dict.fromkeys(f" The plugin {each.plugin} of {each.owner} is broken" for each in broken)
        return "".join(f"{one}: `llmtrace backends` says why." for one in said)


@lru_cache(maxsize=1)
def plugins() -> Plugins:
    """Everything that is installed; looked for once a process."""
    return load(tuple(entry_points(group=GROUP)))


def load(entries: tuple[EntryPoint, ...]) -> Plugins:
    """Import the plugins that the entry points name, and ask each what it brings."""
    errors: list[LLMTraceError] = []
    broken: list[BrokenPlugin] = []
    remains: list[BackendEntry] = []
    backends: dict[str, BackendEntry] = {}
    viewers: dict[str, type[Viewer]] = {}
    rows: dict[Kind, dict[str, Any]] = {"influence method": {}, "hypothesis": {}, "motif": {}}
    owners: dict[tuple[str, str], str] = {}
    origins: dict[tuple[Kind, str], str] = {}
    for of, entry in sorted(
        ((_owner(each), each) for each in entries), key=lambda each: (each[0][0] != CORE, each[1].name)
    ):
        where = f"{entry.value} of {of[0] or UNKNOWN}"

        def report(
            error: LLMTraceError, hook: str, fix: str = "", plugin: str = entry.name, of: tuple[str, str] = of
        ) -> None:
            errors.append(error)
            fix = fix or f"upgrade {of[0] or 'it'} or uninstall it, and tell its author"
            broken.append(BrokenPlugin(plugin, *of, hook, str(error), fix))

        try:
            hook = _register(entry)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a stranger's module must not take the others with it, whatever it raises
            failure = PluginLoadError(f"The plugin {where} could not be loaded: {type(error).__name__}: {error}")
            report(failure, "", _missing(error, of[0]))
            remains.append(BackendEntry(entry.name, *of, "broken", str(failure)))
            continue
        for backend, wrong in _ask(where, "backend", hook.llmtrace_backends):
            if wrong is not None:
                report(wrong, HOOKS["backend"])
                remains.append(BackendEntry(name_of(backend) or entry.name, *of, "broken", str(wrong)))
            elif other := foreign(backend):
                strange = SchemaVersionError(f"The backend {backend.name!r} of {where} {other}")
                report(strange, HOOKS["backend"], f"upgrade {older_of(backend, of[0])}")
                remains.append(BackendEntry(backend.name, *of, "broken", str(strange), backend))
            elif taken := _taken(backend.name, where, owners, "backend"):
                report(taken, HOOKS["backend"], TAKEN)
            else:
                backends[backend.name] = evolve(_entry(backend, *of), kits=getattr(hook, KITS), plugin=entry.name)
        for kind, into in rows.items():
            for item, wrong in _ask(where, kind, getattr(hook, HOOKS[kind])):
                if problem := wrong or _taken(item.name, where, owners, kind):
                    report(problem, HOOKS[kind], "" if wrong else TAKEN)
                else:
                    into[item.name] = item
                    origins[kind, item.name] = of[0]
        for viewer, wrong in _ask(where, "viewer", hook.llmtrace_viewers):
            if problem := wrong or _taken(viewer.name, where, owners, "viewer"):
                report(problem, HOOKS["viewer"], "" if wrong else TAKEN)
                continue
            if clash := _clash(viewer, where, owners):
                report(clash, HOOKS["viewer"], f"{BY_NAME} {viewer.name}, or {TAKEN}")
            viewers[viewer.name] = viewer
            origins["viewer", viewer.name] = of[0]
    backends |= {entry.name: entry for entry in remains if entry.name not in backends}
    return Plugins(
        backends,
        rows["influence method"],
        viewers,
        tuple(errors),
        tuple(broken),
        origins,
        rows["hypothesis"],
        rows["motif"],
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
