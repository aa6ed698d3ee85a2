"""What the conformance kit found. **Outcome**: what became of one test on one family; **check**: all outcomes, with what they were found on."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from attrs import asdict, frozen

import llmtrace
from llmtrace.plugins import BackendEntry


@frozen
class Outcome:
    """What became of one test, on one family."""

    test: str
    """Its name in the kit."""
    family: str
    """Of the tiny model; empty where the test does not depend on it."""
    outcome: Literal["passed", "failed", "gap", "skipped"]
    """`gap`: it fails, as declared; `skipped`: of an ability that the backend does not claim."""
    kind: str = ""
    """Of the gap: ours, upstream or impossible."""
    message: str = ""
    """Why it failed, is a gap, or was left out: one line."""
    seconds: float = 0.0
    """How long it took."""


@frozen
class Check:
    """What the kit found."""

    entry: BackendEntry
    """The backend."""
    families: tuple[str, ...]
    """Those that were looked at."""
    laws: Mapping[str, str]
    """Every test of the kit, with what it holds a backend to."""
    outcomes: tuple[Outcome, ...]
    """In the order of the laws."""
    complete: bool
    """Whether nothing was left out."""
    versions: Mapping[str, str]
    """Of the distributions that took part."""
    seconds: float
    """How long it took."""

    @property
    def python(self) -> str:
        """Python's version."""
        return platform.python_version()

    @property
    def system(self) -> str:
        """Operating system and processor."""
        return f"{platform.system()} {platform.machine()}"

    @property
    def counts(self) -> dict[str, int]:
        """How many passed, failed, are gaps, were skipped."""
        found = Counter(each.outcome for each in self.outcomes)
        return {word: found[word] for word in ("passed", "failed", "gap", "skipped")}

    @property
    def passes(self) -> bool:
        """Whether nothing failed, and something passed: who is held to nothing has not passed."""
        return not self.counts["failed"] and bool(self.counts["passed"])

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints; its schema is check-backend.schema.json."""
        tests = dict.fromkeys(each.test for each in self.outcomes)
        return {
            "schema_version": llmtrace.SCHEMA_VERSION,
            "backend": self.entry.name,
            "distribution": self.entry.distribution,
            "version": self.entry.version,
            "runtime": self.entry.backend.runtime if self.entry.backend is not None else "",
            "verdict": "passes" if self.passes else "fails",
            "complete": self.complete,
            "counts": self.counts,
            "families": list(self.families),
            "tests": [
                {
                    "test": test,
                    "law": self.laws.get(test, ""),
                    "outcomes": [_row(each) for each in self.outcomes if each.test == test],
                }
                for test in tests
            ],
            "versions": dict(self.versions),
            "python": self.python,
            "platform": self.system,
            "seconds": round(self.seconds, 3),
        }


def _row(outcome: Outcome) -> dict[str, Any]:
    row = asdict(outcome) | {"family": outcome.family or None, "seconds": round(outcome.seconds, 3)}
    del row["test"]
    return row
