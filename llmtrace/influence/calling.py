"""Calls into an influence method, which may be a stranger's. **Called**: a method's fold at work, held to what its row and the protocol
say; what it does wrong is a `PluginError` that names the method, its distribution and the call.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from attrs import evolve

from llmtrace.brought import fault
from llmtrace.calling import calling_plugin
from llmtrace.errors import PluginError, suggest
from llmtrace.influence.answered import check_answer
from llmtrace.influence.method import Answer, Method, Task
from llmtrace.plugins import UNKNOWN, Plugins
from llmtrace.schema.evaluate import Signals
from llmtrace.schema.sites import Array


class Called:
    """Made of a row and a task; itself a fold. Raises `PluginError`, and typed errors of the method as they are."""

    def __init__(self, method: Method, task: Task, found: Plugins) -> None:
        self._who = who(method, found)
        self._method = method
        if "W" not in method.needs.split():
            task = evolve(task, equations=evolve(task.equations, weights=Undeclared(self._who, method.needs)))
        self._task = task
        with calling_plugin(self._who, "fold"):
            self._fold = method.fold(task)
        with calling_plugin(self._who, "sites"):
            given: object = self._fold.sites
            named = [given] if isinstance(given, str) else list(self._fold.sites)
        self.sites: Collection[str] = tuple(self._site(site, given) for site in named)

    def layer(self, layer: int, signals: Signals) -> None:
        """Hand one block on."""
        with calling_plugin(self._who, "layer"):
            self._fold.layer(layer, signals)

    def finish(self, ends: Signals) -> None:
        """Hand the ends on."""
        with calling_plugin(self._who, "finish"):
            self._fold.finish(ends)

    def answer(self) -> Answer:
        """What the fold answers. Raises `SchemaViolationError` too, for numbers that cannot be."""
        with calling_plugin(self._who, "answer"):
            answer: object = self._fold.answer()
        return check_answer(self._who, self._method, self._task, answer)

    def _site(self, site: object, given: object) -> str:
        if isinstance(given, str):
            raise PluginError(
                f"{self._who} has `sites` {given!r}, a text: they must be a tuple or a list of names. {BLAME}"
            )
        steps = self._task.equations.steps
        if not isinstance(site, str) or site not in steps:
            near = suggest(site, steps) if isinstance(site, str) else ""
            raise PluginError(
                f"{self._who} names among its `sites` {site!r}, which is no site of this {self._task.equations.spec.family} model by its "
                f"full name.{near} {BLAME}"
            )
        return site


BLAME = "That is a fault of the method: report it to its author."


def who(method: Method, found: Plugins) -> str:
    """The method with its distribution, to begin a sentence with."""
    brought = found.methods.get(method.name) is method
    return (
        f"The influence method {method.name} of {found.owner('influence method', method.name) if brought else UNKNOWN}"
    )


def checked(method: Method) -> Method:
    """A row that no plugin brought, once it is seen to be sound. Raises `PluginError`."""
    if wrong := fault("influence method", method):
        name = repr(getattr(method, "name", type(method).__name__))
        raise PluginError(f"The influence method {name} of {UNKNOWN} {wrong}.")
    return method


class Undeclared(Mapping[str, Array]):
    """The weights of who did not say that it reads any: empty, and whoever looks one up is told. Raises `PluginError`."""

    def __init__(self, who: str, needs: str) -> None:
        self._who, self._needs = who, needs

    def __getitem__(self, name: str) -> Array:
        """Raises."""
        raise PluginError(
            f"{self._who} reads the weight {name}, and its `needs` is {self._needs!r}: it must be 'T W', so that a backend without weights "
            f"is refused before a run. {BLAME}"
        )

    def __contains__(self, name: object) -> bool:
        """Raises."""
        return bool(self[str(name)] is None)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
