"""Runs the conformance kit in a process of its own and tells, a line of JSON at a time, what becomes of each test. **Order**: what the
process is to do, as JSON; `llmtrace.testing.checking` gives it and listens.

A process of its own, because a stranger's runtime may take it down, leave threads behind, or never come back. Nothing of the directory
that it was called from is looked at: no conftest, no settings of pytest.
"""

from __future__ import annotations

import json
import os
import re
import sys
import types
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import pytest
from attrs import field, frozen

from llmtrace.errors import LLMTraceError, OptionError, PluginLoadError, suggest
from llmtrace.plugins import KITS, plugins
from llmtrace.testing.failing import SourceFailed, place_of

if TYPE_CHECKING:
    from llmtrace.testing.conformance import BackendConformance

MODULE = "llmtrace_kit_under_check"
FILE = f"from {MODULE} import TestBackend\n"
MODELS = "models"
"""Where the tests put theirs."""
LONGEST = 500
"""Characters of a message."""


@frozen
class Order:
    """What is to be run."""

    backend: str
    """By name."""
    directory: str
    """A directory of its own, which is empty at first."""
    families: tuple[str, ...] = field(converter=tuple, default=())
    """Only these; all where there is none."""
    tests: tuple[str, ...] = field(converter=tuple, default=())
    """Only those whose names hold one of these."""
    done: tuple[str, ...] = field(converter=tuple, default=())
    """Nodes that another process has begun, and that are not to be run again."""


def kit_of(name: str) -> type[BackendConformance]:
    """The kit of an installed backend: the one that its plugin brings, else a plain one.

    Raises `BackendNotFoundError`, and `PluginLoadError` where the plugin's hook fails or answers with something else.
    """
    from llmtrace.testing.conformance import BackendConformance

    backend, entry = plugins().backend(name), plugins().backends[name]
    try:
        brought: list[Any] = [kit for kits in entry.kits() for kit in kits]
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a stranger's hook may raise anything
        raise PluginLoadError(
            f"The hook {KITS} of {entry.distribution} failed: {type(error).__name__}: {error}"
        ) from error
    for kit in brought:
        if not (isinstance(kit, type) and issubclass(kit, BackendConformance) and hasattr(kit, "backend")):
            raise PluginLoadError(
                f"The hook {KITS} of {entry.distribution} answered with {kit!r:.100}, which is no subclass of BackendConformance with a "
                "`backend`"
            )
    plain = type("TestBackend", (BackendConformance,), {"backend": backend})
    return next((kit for kit in brought if kit.backend is backend), plain)


class Teller:
    """A plugin of pytest: chooses the tests, and tells."""

    def __init__(self, order: Order, out: TextIO) -> None:
        self.order = order
        self.out = out
        self.here = re.escape(str(Path(order.directory, MODELS))) + r"[/\\](kit\d+[/\\])?"
        """What the path of every model begins with, and nobody needs to read."""
        self.package = ""
        """The plugin's."""
        self.worst: dict[str, Any] = {}
        """What is known of the test that is running."""

    def tell(self, event: str, **about: Any) -> None:
        """One line."""
        print(json.dumps({"event": event, **about}), file=self.out, flush=True)

    def pytest_configure(self) -> None:
        """Find the kit, now that its assertions can explain themselves."""
        pytest.register_assert_rewrite("llmtrace.testing.kit")
        from llmtrace.testing.conformance import tests

        try:
            kit = kit_of(self.order.backend)
            for family in self.order.families:
                if family not in kit.families:
                    known = ", ".join(kit.families)
                    raise OptionError(
                        f"The kit has no family {family!r}; there are {known}.{suggest(family, kit.families)}"
                    )
        except LLMTraceError as error:
            self.tell("refused", error=type(error).__name__, message=str(error))
            pytest.exit("refused", returncode=2)
        self.package = kit.backend.__module__.partition(".")[0]
        module = types.ModuleType(MODULE)
        vars(module)["TestBackend"] = kit
        sys.modules[MODULE] = module
        self.tell("kit", families=list(kit.families), laws=tests())

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what is not asked for."""
        items[:] = [item for item in items if _asked(item, self.order)]
        self.tell("collected", nodes=[[item.nodeid, *_of(item)] for item in items])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins."""
        self.worst = {"outcome": "passed", "kind": "", "message": "", "seconds": 0.0}
        self.tell("started", node=nodeid)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """A part of a test has ended: setting up, the test itself, or tidying up."""
        report = yield
        seconds = self.worst["seconds"] + report.duration
        if self.worst["outcome"] != "failed" and not report.passed:
            self.worst = _judged(report, call, self.package)
            self.worst["message"] = re.sub(self.here, "", self.worst["message"])[:LONGEST]
        self.worst["seconds"] = seconds
        return report

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """A test is over."""
        self.tell("ended", node=nodeid, **self.worst)

    def pytest_sessionfinish(self) -> None:
        """All are."""
        self.tell("finished")


def _of(item: pytest.Item) -> tuple[str, str]:
    """A test's name, and its family or nothing."""
    family = getattr(item, "callspec", None)
    return getattr(item, "originalname", item.name), str(family.params.get("tiny", "")) if family else ""


def _asked(item: pytest.Item, order: Order) -> bool:
    test, family = _of(item)
    return (
        item.nodeid not in order.done
        and (not order.families or family in order.families)
        and (not order.tests or any("_".join(part.split()) in test for part in order.tests))
    )


def _judged(report: pytest.TestReport, call: pytest.CallInfo[None], package: str) -> dict[str, Any]:
    """What became of a test that did not simply pass; `package` is the plugin's."""
    reason = getattr(report, "wasxfail", None)
    if report.skipped and reason is not None:
        kind, _, why = reason.partition(": ")
        return {"outcome": "gap", "kind": kind, "message": _first(why)}
    if report.skipped:
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        return {"outcome": "skipped", "kind": "", "message": _first(why.removeprefix("Skipped: "))}
    if call.excinfo is None:  # a gap that was to fail, and did not
        said = str(report.longrepr).removeprefix("[XPASS(strict)] ")
        return {
            "outcome": "failed",
            "kind": "",
            "message": _first(f"passes, and is declared a gap ({said}): delete the gap"),
        }
    error = call.excinfo.value
    name = "" if isinstance(error, (AssertionError, SourceFailed)) else f"{type(error).__name__}: "
    message = (_first(f"{name}{error}") or type(error).__name__)[: LONGEST - 100]
    return {"outcome": "failed", "kind": "", "message": message + place_of(error, package)}


def _first(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")


def run(order: Order, out: TextIO) -> int:
    """Run the kit; pytest's exit status."""
    place = Path(order.directory)
    (place / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (place / "test_kit.py").write_text(FILE, encoding="utf-8")
    without = ("cacheprovider", "doctest", "junitxml", "pastebin")
    return int(
        pytest.main(
            [
                str(place / "test_kit.py"), "-c", str(place / "pytest.ini"), "--rootdir", str(place), "--noconftest", "-q",
                "--import-mode=importlib", f"--basetemp={place / MODELS}", "-p", "llmtrace.testing.pytest_plugin",
                *(word for plugin in without for word in ("-p", f"no:{plugin}")),
            ],
            plugins=[Teller(order, out)],
        )
    )  # fmt: skip


def main() -> int:
    """Run the order on the command line; standard output is the line to who gave it, and what anybody prints there goes nowhere."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return run(Order(**json.loads(sys.argv[1])), out)


if __name__ == "__main__":
    sys.exit(main())
