"""Planted faults are found where they are, their causes named, and right conversions pass: as docs/compare-faults.md states."""

from __future__ import annotations

import pytest

for module in ("torch", "transformers", "llmtrace_torch"):
    pytest.importorskip(module)

from tests.comparison.faults.__main__ import FOUND, NAMED, conversions
from tests.comparison.faults.bases import BASES
from tests.comparison.faults.columns import COLUMNS, OTHERS
from tests.comparison.faults.measure import Bench, measure
from tests.comparison.faults.page import (
    Totals,
    mark,
    stated,
    stated_clean,
    stated_rows,
    stated_unnamed,
)
from tests.comparison.faults.rows import FAULTS

IN_FLOAT32 = [fault for fault in FAULTS if fault.how != "converter"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """The tiny models, written and opened once a module."""
    made = Bench(tmp_path_factory.mktemp("faults"))
    yield made
    made.close()


@pytest.mark.parametrize("fault", IN_FLOAT32, ids=lambda fault: fault.name)
def test_a_fault_is_the_first_divergence_and_its_cause_is_named(fault, bench):
    (outcome,) = measure(bench, fault, ("float32",))
    assert outcome.visible and outcome.status == "found", outcome
    assert outcome.named != ((fault.name, "float32") in stated_unnamed()), outcome
    assert mark(outcome) == stated_rows()[fault.name]["float32"]


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.how == "converter"], ids=lambda fault: fault.name)
def test_what_a_writer_of_graphs_took_for_another_model_is_found(fault, bench):
    pytest.importorskip("llmtrace_onnxruntime")
    (outcome,) = measure(bench, fault, ("ONNX",))
    assert (outcome.status, outcome.named) == ("found", True), outcome
    assert mark(outcome) == stated_rows()[fault.name]["ONNX"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_runtime_and_precision_shows_what_it_can(fault, bench):
    pytest.importorskip("llmtrace_onnxruntime")
    pytest.importorskip("llmtrace_llamacpp")
    outcomes = list(measure(bench, fault))
    assert {each.column: mark(each) for each in outcomes} == {
        column: said for column, said in stated_rows()[fault.name].items() if column != "cause"
    }
    unnamed = {(each.fault, each.column) for each in outcomes if each.status == "found" and not each.named}
    assert unnamed == {each for each in stated_unnamed() if each[0] == fault.name}


def test_a_model_agrees_with_itself(bench):
    verdicts = dict(conversions(bench, ("float32",)))
    assert len(verdicts) == len(BASES) - 1
    assert set(verdicts.values()) == {"agrees"}


@pytest.mark.slow
def test_no_right_conversion_diverges(bench):
    pytest.importorskip("llmtrace_onnxruntime")
    pytest.importorskip("llmtrace_llamacpp")
    verdicts = dict(conversions(bench, (*COLUMNS, *OTHERS)))
    assert stated_clean() == (len(verdicts), "none")
    assert {place for place, verdict in verdicts.items() if verdict == "diverges"} == set()


def test_the_page_has_a_row_for_each_fault_and_none_besides():
    names = [fault.name for fault in FAULTS]
    assert len(names) == len(set(names)) >= 48
    assert list(stated_rows()) == names


@pytest.mark.parametrize("column", COLUMNS)
def test_the_totals_of_a_column_are_those_of_its_rows(column):
    marks = [row[column] for row in stated_rows().values()]
    said = stated(column)
    assert said.planted == sum(each != "–" for each in marks)
    assert said.right == marks.count("✓")
    assert said.found + said.passed == marks.count("✓") + marks.count("·")
    assert said.above + said.below == said.planted
    unnamed = [each for each in stated_unnamed() if each[1] == column]
    assert said.named == said.right - len(unnamed)


def test_the_totals_of_all_are_those_of_the_columns_and_reach_the_goals():
    each, said = [stated(column) for column in COLUMNS], stated("all")
    assert said == Totals(*(sum(values) for values in zip(*map(_numbers, each), strict=True)))
    assert said.found >= FOUND * said.above
    assert said.passed == said.below
    assert said.named >= NAMED * said.right
    counted = [row["cause"].split(" of ") for row in stated_rows().values()]
    assert said.named == sum(int(named) for named, _ in counted)
    assert stated("float32").found >= FOUND * stated("float32").planted


def _numbers(totals):
    return (
        totals.planted,
        totals.above,
        totals.found,
        totals.below,
        totals.passed,
        totals.named,
        totals.right,
    )
