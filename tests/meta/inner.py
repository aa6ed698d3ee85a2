"""A pytest within pytest: runs tests of the kit in this process, and keeps what became of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

HERE = Path(__file__).parent
QUIET = ["-q", "--capture=no", "--no-header", "--tb=short", "--import-mode=importlib"]
WITHOUT = [word for plugin in ("cacheprovider", "xdist", "faulthandler") for word in ("-p", f"no:{plugin}")]


class Outcomes:
    """Reports by the node's name, without its file."""

    def __init__(self) -> None:
        self.reports: dict[str, list[pytest.TestReport]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.setdefault(report.nodeid.partition("::")[2], []).append(report)

    def call(self, test: str) -> pytest.TestReport:
        """What became of the one test of this name."""
        (found,) = [
            each
            for node in self.reports
            if node.endswith(f"::{test}")
            for each in self.reports[node]
            if each.when == "call"
        ]
        return found


def judge(nodes: Sequence[str]) -> Outcomes:
    """Run nodes of `suspects.py`, such as `TestHonest::test_runs_repeat[llama]`."""
    return _run(*(f"{HERE / 'suspects.py'}::{node}" for node in nodes))[1]


def judge_file(file: Path, *arguments: str) -> tuple[int, Outcomes]:
    """Run a file of tests; returns pytest's exit status too."""
    return _run(str(file), f"--rootdir={file.parent}", *arguments)


def _run(*arguments: str) -> tuple[int, Outcomes]:
    outcomes = Outcomes()
    with np.errstate(), mock.patch.dict(os.environ):  # some of them change what is everyone's
        code = pytest.main([*arguments, *QUIET, *WITHOUT], plugins=[outcomes])
    return int(code), outcomes
