"""Every wrong backend fails, in the test that names what is wrong with it; the honest one passes."""

import re

import pytest

from llmtrace.testing.conformance import tests as laws
from llmtrace.testing.model import FAMILIES
from tests.meta.inner import judge
from tests.meta.lies import LIES


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: f"{lie.name}-{lie.test}")
def test_a_wrong_backend_fails_where_its_fault_is_named(lie):
    node = f"Test{lie.name}::{lie.test}"
    reports = judge([node]).reports.get(node, [])
    assert [report.when for report in reports] == ["setup", "call", "teardown"], "it broke before it could be tested"
    assert reports[1].failed, f"nothing noticed: {lie.fault}"
    said = reports[1].longrepr.reprcrash.message
    assert said.startswith(("AssertionError", "assert")), said
    assert re.search(lie.says, said, re.DOTALL), said


def test_no_test_of_the_kit_is_without_a_backend_that_it_catches():
    elsewhere = {
        "test_the_runtime_is_not_imported_before_a_model_is_opened",  # needs a module of its own: test_the_kit_before_opening.py
        "test_a_suffix_alone_is_no_claim",  # needs a model that is one file: the same
    }
    assert set(laws()) - {lie.test.partition("[")[0] for lie in LIES} == elsewhere


def test_every_family_of_the_kit_has_a_backend_that_it_catches():
    assert {lie.test.partition("[")[2].removesuffix("]") for lie in LIES} - {""} == set(FAMILIES)


def test_the_honest_backend_passes_each_of_these_tests():
    nodes = dict.fromkeys(f"TestHonest::{lie.test}" for lie in LIES)
    found = judge(list(nodes)).reports
    assert sorted(found) == sorted(nodes)
    assert not [report.longreprtext for reports in found.values() for report in reports if not report.passed]


@pytest.mark.slow
def test_the_honest_backend_passes_the_whole_kit():
    found = judge(["TestHonest"]).reports
    assert len(found) > 100
    others = {node for node, reports in found.items() if not all(report.passed for report in reports)}
    assert others == {"TestHonest::test_a_suffix_alone_is_no_claim"}, others  # it opens directories
