"""The built-in methods come through the same door as a stranger's."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import attrs
import numpy as np
import pytest

from llmtrace.hookspecs import hookimpl
from llmtrace.influence import Answer, Contract, Method, influence
from llmtrace.influence.plugin import llmtrace_influence_methods
from llmtrace.loading import load
from llmtrace.plugins import plugins
from llmtrace.testing import check_method


class LastResid:
    """A stranger's method: norms of the last stream."""

    sites = ("blocks.1.resid_post",)

    def __init__(self, task):
        self.task = task

    def layer(self, layer, signals):
        if layer == 1:
            self.norms = np.linalg.norm(signals["blocks.1.resid_post"], axis=-1)

    def finish(self, ends):
        pass

    def answer(self):
        return Answer(self.norms * (np.arange(len(self.norms)) <= self.task.position))


ROW = Method("norms", "Norms", "T", "T d", None, "nobody", Contract("o", "f", "p", "x", "norm"), LastResid)


def test_the_built_in_methods_are_found_through_the_entry_point():
    names = {row.name for row in llmtrace_influence_methods()}
    assert names == {"alti", "attention", "dla", "rollout"}
    assert names <= set(plugins().methods)


def test_every_row_says_what_it_means():
    for row in llmtrace_influence_methods():
        assert all(attrs.astuple(row.contract)), row.name
        assert row.source
        assert row.cost
        assert set(row.needs.split()) <= {"T", "W"}
        assert (row.completeness is None) == (row.name == "attention")


@pytest.mark.parametrize("row", llmtrace_influence_methods(), ids=lambda row: row.name)
def test_every_row_passes_the_check_that_strangers_are_given(row):
    check_method(row, gap=1e-9)


@pytest.fixture
def strangers(monkeypatch):
    """Plugins as they are with a stranger's module among them, whose rows are given."""

    def install(*rows):
        module = ModuleType("stranger")
        module.llmtrace_influence_methods = hookimpl(lambda: rows)
        module.llmtrace_influence_methods.__name__ = "llmtrace_influence_methods"
        monkeypatch.setitem(sys.modules, "stranger", module)
        entries = (
            EntryPoint("influence", "llmtrace.influence.plugin", "llmtrace"),
            EntryPoint("stranger", "stranger", "llmtrace"),
        )
        found = load(entries)
        monkeypatch.setattr("llmtrace.influence.run.plugins", lambda: found)
        return found

    return install


def test_a_strangers_method_runs_beside_the_built_in_ones(hand, strangers):
    assert strangers(ROW).errors == ()
    alti, norms = influence(hand, "a b c a b", ("alti", "norms"), position=3)
    expected = np.linalg.norm(
        hand.trace("a b c a b", capture="blocks.1.resid_post")["blocks.1.resid_post"].array, axis=-1
    )
    assert norms.scores == pytest.approx(np.where(np.arange(6) <= 3, expected, 0))
    assert (norms.contract.unit, norms.method, alti.method) == ("norm", "norms", "alti")
    assert hand.influence("a b c a b", method="norms").completeness_gap is None


def test_a_stranger_that_answers_nonsense_is_named(hand, strangers):
    from llmtrace.errors import SchemaViolationError

    class Nonsense(LastResid):
        def answer(self):
            return Answer(np.full(6, np.nan))

    strangers(attrs.evolve(ROW, fold=Nonsense))
    with pytest.raises(SchemaViolationError, match=r"The influence method norms of .* answered"):
        influence(hand, "a b c a b", ("norms",))


def test_a_strangers_row_does_not_displace_a_built_in_one(strangers):
    found = strangers(attrs.evolve(ROW, name="alti"))
    assert found.methods["alti"].title == "ALTI"
    assert len(found.errors) == 1


def test_importing_the_package_imports_no_method_and_no_library():
    code = (
        "import sys, llmtrace.influence, llmtrace.influence.plugin;"
        "print([m for m in sys.modules if m.split('.')[0] in ('numpy', 'pandas', 'torch') or m.startswith('llmtrace.influence.')])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "['llmtrace.influence.plugin']"
