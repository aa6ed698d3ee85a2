"""A stranger's method and viewer at the command line, installed as pip leaves them: what they do wrong is theirs, in one line."""

from __future__ import annotations

import pytest

from tests.strangers import install, llmtrace

PLUGIN = """
import numpy as np
from llmtrace import hookimpl
from llmtrace.influence.method import Answer, Method
from llmtrace.influence.record import Contract

class Fold:
    sites = ["logits"]

    def __init__(self, task):
        self.task = task

    def layer(self, layer, signals):
        pass

    def finish(self, ends):
        self.row = np.zeros(len(self.task.tokens))

    def answer(self):
        return Answer(self.row)

class Raising(Fold):
    def answer(self):
        return 1 / 0

class Later(Fold):
    def answer(self):
        return Answer(self.row + 1)

class Markdown:
    name, suffix = "markdown", ".html"

    @staticmethod
    def render(influences, lens=None):
        return "# markdown"

class Nothing(Markdown):
    name, suffix = "nothing", ".none"

    @staticmethod
    def render(influences, lens=None):
        return None

def row(name, fold):
    return Method(name, name, "T", "T", None, "nobody", Contract("o", "f", "p", "x", "u"), fold, aims=False)

@hookimpl
def llmtrace_influence_methods():
    return [row("raising", Raising), row("later", Later)]

@hookimpl
def llmtrace_viewers():
    return [Markdown, Nothing]
"""
MODEL, PROMPT = "builtin:induction", "a b c a b"


@pytest.fixture
def stranger(tmp_path):
    """`llmtrace …` in a process that finds the distribution `llmtrace-ill` 1.0."""
    path = install(tmp_path / "site", "llmtrace-ill", PLUGIN)
    return lambda *args: llmtrace(*args, path=(path,), cwd=tmp_path)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--method", "raising"), "The influence method raising of llmtrace-ill failed in answer: ZeroDivisionError"),
        (("--method", "later", "--position", "2"), "The influence method later of llmtrace-ill answered with `scores`"),
        (("--save", "x.none"), "The viewer nothing of llmtrace-ill returned NoneType"),
    ],
)
def test_what_it_does_wrong_is_one_line_that_names_it_and_its_distribution(stranger, tmp_path, args, words):
    done = stranger("influence", MODEL, PROMPT, *args)
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert words in line
    assert "bug in llmtrace" not in line
    assert not (tmp_path / "x.none").exists()


def test_a_suffix_of_the_core_stays_with_the_core_and_the_clash_is_listed(stranger, tmp_path):
    assert stranger("influence", MODEL, PROMPT, "--save", "c.html").returncode == 0
    assert (tmp_path / "c.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert stranger("influence", MODEL, PROMPT, "--save", "m.html", "--viewer", "markdown").returncode == 0
    assert (tmp_path / "m.html").read_text(encoding="utf-8") == "# markdown"
    (line,) = [line for line in stranger("backends").stdout.splitlines() if line.startswith("broken plugin: ")]
    assert "llmtrace-ill 1.0: The viewer 'markdown' of" in line
    assert line.endswith("choose it with --viewer markdown, or uninstall one of them")
