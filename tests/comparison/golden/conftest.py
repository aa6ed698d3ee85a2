"""How these tests ask: the page's own commands, in a directory that holds the files of one case."""

from __future__ import annotations

import pytest
from attrs import field, frozen
from click.testing import CliRunner

from llmtrace.cli.app import app
from llmtrace.comparison import comparing
from tests.comparison.golden.page import missing, told


@frozen
class Answer:
    """What one command of the page came to."""

    code: int
    out: str = field(repr=False)
    document: dict = field(repr=False)
    """What it would print with `--json`."""

    @property
    def headline(self) -> str:
        return self.out.splitlines()[0]

    @property
    def candidate(self) -> dict:
        (found,) = self.document["candidates"]
        return found


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """`answers(heading)`: each command of a section is run, and prints what the page says."""
    monkeypatch.chdir(tmp_path)
    made = []
    compare = comparing.compare

    def keeping(*sides, **settings):
        made.append(compare(*sides, **settings))
        return made[-1]

    monkeypatch.setattr(comparing, "compare", keeping)

    def ask(heading):
        found = []
        for each in told(heading):
            program, *arguments = each.command
            assert program == "llmtrace"
            run = CliRunner().invoke(app, arguments)
            assert run.exit_code < 2, run.output
            assert missing(each.answer, run.stdout) == [], run.stdout
            found.append(Answer(run.exit_code, run.stdout, made[-1].to_json()))
        return found

    return ask
