"""What pytest is told, through its own entry point. Of the kit: gaps are strict xfails, and a kit that only skips has failed. Of models: a
fixture that holds one to another.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from inspect import signature
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmtrace.comparison.record import Comparison
    from llmtrace.testing.kit.base import Kit

KIT = "llmtrace_kit"
"""Marks the tests of the kit, so that a report is known as one of theirs in another process too."""
COVERED = (Exception, pytest.fail.Exception)
"""What a gap may be: not a kit whose own `source` is broken (`SourceFailed`)."""


@pytest.fixture(name="assert_same_model", scope="session")
def _assert_same_model() -> Callable[..., Comparison]:
    """`llmtrace.testing.assert_same_model`: fails where a model is no longer the one that it was made from."""
    from llmtrace.testing.same_model import assert_same_model

    return assert_same_model


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, and watch what becomes of the kit's tests."""
    config.addinivalue_line("markers", f"{KIT}: a test of LLMTrace's conformance kit")
    config.pluginmanager.register(Tally(), "llmtrace-kit-tally")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Turn each declared gap into a strict xfail. Raises `pytest.UsageError` for a gap that names no test and no family."""
    if "llmtrace.testing.kit.base" not in sys.modules:  # nobody has defined a kit: it costs nothing
        return
    from llmtrace.testing.kit.base import Kit

    for item in items:
        kit = getattr(item, "cls", None)
        if isinstance(item, pytest.Function) and isinstance(kit, type) and issubclass(kit, Kit):
            item.add_marker(KIT)
            _check(kit)
            family = re.search(r"\[(.*)\]$", item.name)
            keys = (item.originalname, item.name, family[1] if family else "")
            for gap in (kit.gaps[key] for key in keys if key in kit.gaps):
                item.add_marker(pytest.mark.xfail(strict=True, raises=COVERED, reason=f"{gap.kind}: {gap.reason}"))


def _check(kit: type[Kit]) -> None:
    from llmtrace.errors import suggest
    from llmtrace.testing.conformance import tests

    names = tests()
    for key in kit.gaps:
        name, bracket, family = key.partition("[")
        family = family.removesuffix("]")
        takes_family = name in names and {"tiny", "model"} & set(signature(getattr(kit, name)).parameters)
        if bracket and not (takes_family and family in kit.families):
            near = suggest(family, kit.families) if takes_family else suggest(name, names)
        elif not bracket and name not in names and name not in kit.families:
            near = suggest(name, [*names, *kit.families])
        else:
            continue
        raise pytest.UsageError(f"{kit.__name__} declares a gap {key!r}, which is no test and no family.{near}")


class Tally:
    """Which kits ran, and how many of the tests of each passed."""

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count."""
        if KIT in report.keywords:
            self.passed[report.nodeid.rpartition("::")[0]] += report.when == "call" and report.passed

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run in which a kit held its backend to nothing."""
        if self.idle and session.exitstatus == pytest.ExitCode.OK and not hasattr(session.config, "workerinput"):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which."""
        for kit in self.idle:
            terminalreporter.write_line(
                f"{kit}: not one test of the conformance kit passed, so nothing is known of the backend", red=True
            )

    @property
    def idle(self) -> list[str]:
        """The kits of which nothing passed."""
        return [kit for kit, passed in self.passed.items() if not passed]
