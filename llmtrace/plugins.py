"""Finds plugins and keeps what they bring. **Plugin**: a module named by an entry point of the group `llmtrace`.

One broken plugin is reported and the rest work. What the core itself brings comes the same way, through an entry point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal, TypeVar

from attrs import field, frozen

from llmtrace.brought import Kind
from llmtrace.errors import BackendNotFoundError, LLMTraceError, UnknownMethodError, suggest

if TYPE_CHECKING:
    from llmtrace.circuits.motif import Motif
    from llmtrace.comparison.case import Hypothesis
    from llmtrace.influence.method import Method
    from llmtrace.protocol import TraceBackend
    from llmtrace.testing.conformance import BackendConformance
    from llmtrace.view.viewer import Viewer

Brought = TypeVar("Brought")
GROUP = "llmtrace"
KITS = "llmtrace_conformance"
"""The hook that is asked later, by who checks a backend."""
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
        return self._named("influence method", self.methods, name)

    def motif(self, name: str) -> Motif:
        """A motif. Raises `UnknownMethodError` with near names."""
        return self._named("motif", self.motifs, name)

    def viewer(self, name: str) -> type[Viewer]:
        """A viewer. Raises `UnknownMethodError` with near names."""
        return self._named("viewer", self.viewers, name)

    def _named(self, kind: Kind, known: Mapping[str, Brought], name: str) -> Brought:
        if name not in known:
            raise UnknownMethodError(
                f"No {kind} is named {name!r}; there are {', '.join(sorted(known))}.{suggest(name, known)}{self._perhaps()}"
            )
        return known[name]

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
    from llmtrace.loading import load

    return load(tuple(entry_points(group=GROUP)))
