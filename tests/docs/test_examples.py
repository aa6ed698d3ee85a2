"""Whatever a page shows as Python or as a command runs; whatever a docstring shows prints what it says."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

import llmtrace
from tests.docs.documents import ROOT, documents

PARSERS = [PythonCodeBlockParser(doctest_optionflags=doctest.NORMALIZE_WHITESPACE)]
COMMAND = re.compile(r"^(?:\$ )?(llmtrace .*)$", re.MULTILINE)
EXITS = re.compile(r"# exits (\d)\b")
"""What a command's comment says of its exit code, where that is not 0."""


def modules() -> list[str]:
    found = pkgutil.walk_packages(llmtrace.__path__, "llmtrace.")
    return ["llmtrace", *(module.name for module in found if not module.name.endswith("__main__"))]


def commands(page: Path) -> list[tuple[list[str], int]]:
    """The command lines in a page's shell blocks, with the exit codes that they should have."""
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [(shlex.split(line, comments=True), _code(line)) for block in blocks for line in COMMAND.findall(block)]


def shown(page: Path) -> list[tuple[str, str]]:
    """The command lines that a page shows with what they print, and that, without the blanks that end a line."""
    blocks = re.findall(r"```console\n\$ llmtrace (.*)\n((?:.*\n)*?)```", page.read_text(encoding="utf-8"))
    return [(line, printed) for line, printed in blocks if printed]


def _code(line: str) -> int:
    found = EXITS.search(line)
    return 0 if found is None else int(found[1])


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", documents(), ids=name)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run_python(page, tmp_path, monkeypatch)


def _run_python(page: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory)
    for example in Sybil(parsers=PARSERS).parse(page).examples():
        example.evaluate()


@pytest.mark.parametrize("page", [page for page in documents() if commands(page)], ids=name)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one directory: a later command may read what an earlier one wrote, and what a page's Python did before them."""
    if any(code for _, code in commands(page)):  # a fault that they find was planted by the page's Python
        _run_python(page, tmp_path, monkeypatch)
    for (_, *arguments), code in commands(page):
        line = [sys.executable, "-m", "llmtrace.cli", *arguments]
        done = subprocess.run(
            line, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "100"}
        )
        assert done.returncode == code, f"llmtrace {shlex.join(arguments)}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", [page for page in documents() if shown(page)], ids=name)
def test_what_a_page_shows_of_a_command_is_what_it_prints(page: Path, tmp_path: Path) -> None:
    for line, printed in shown(page):
        command = [sys.executable, "-m", "llmtrace.cli", *shlex.split(line)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False)
        assert [each.rstrip() for each in done.stdout.splitlines()] == printed.splitlines()


@pytest.mark.parametrize("module", modules())
def test_the_examples_of_a_module_print_what_they_say(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0
