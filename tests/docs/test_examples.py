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


def modules() -> list[str]:
    found = pkgutil.walk_packages(llmtrace.__path__, "llmtrace.")
    return ["llmtrace", *(module.name for module in found if not module.name.endswith("__main__"))]


def commands(page: Path) -> list[list[str]]:
    """The command lines in a page's shell blocks."""
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [shlex.split(line, comments=True) for block in blocks for line in COMMAND.findall(block)]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", documents(), ids=name)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for example in Sybil(parsers=PARSERS).parse(page).examples():
        example.evaluate()


@pytest.mark.parametrize("page", [page for page in documents() if commands(page)], ids=name)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    """In order, in one directory: a later command may read what an earlier one wrote."""
    for _, *arguments in commands(page):
        line = [sys.executable, "-m", "llmtrace.cli", *arguments]
        done = subprocess.run(
            line, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "100"}
        )
        assert done.returncode == 0, f"llmtrace {shlex.join(arguments)}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("module", modules())
def test_the_examples_of_a_module_print_what_they_say(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0
