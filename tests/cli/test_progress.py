"""What is being done: one line on a terminal, which goes; nothing elsewhere, and nothing with `--quiet`."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, suppress

import pytest

from llmtrace.cli.options import Out
from llmtrace.cli.progress import Progress

TOLD = Out(json=False, quiet=False)
CLEAR = "\r\x1b[K"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def shown(monkeypatch):
    """`shown(where, doing…)`: what is written there; the last of what is done fails if it is an error."""
    monkeypatch.setenv("COLUMNS", "40")

    def show(where, *doing, out=TOLD):
        with redirect_stderr(where), suppress(KeyError), Progress(out) as progress:
            for each in doing:
                if isinstance(each, Exception):
                    raise each
                progress(each)
        return where.getvalue()

    return show


def test_on_a_terminal_one_line_changes_and_is_cleared(shown):
    assert shown(Terminal(), "opening a", "a: prompt 1 of 2") == f"{CLEAR}opening a …{CLEAR}a: prompt 1 of 2 …{CLEAR}"


def test_it_is_cleared_before_an_error_is_told(shown):
    assert shown(Terminal(), "opening a", KeyError()) == f"{CLEAR}opening a …{CLEAR}"


def test_a_long_name_stays_on_one_line_with_its_end_and_cannot_move_the_terminal(shown):
    _, line, rest = shown(Terminal(), "x" * 100 + "\x1b[2J: prompt 1 of 2").split(CLEAR)
    assert len(line) <= 40 and "\x1b" not in line and rest == ""
    assert line.endswith(": prompt 1 of 2 …")


def test_elsewhere_and_quietly_nothing_is_said(shown):
    assert shown(io.StringIO(), "opening a") == ""
    assert shown(Terminal(), "opening a", out=Out(json=False, quiet=True)) == ""
