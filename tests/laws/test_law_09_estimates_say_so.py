"""Law 9. A number that is an estimate says so, with its method and its completeness gap."""

import math

import attrs
import numpy as np
import pytest

import llmtrace
from llmtrace.plugins import plugins

METHODS = sorted(plugins().methods)
PROMPT = "c a f e b o d c a f"


@pytest.fixture(scope="module")
def model():
    with llmtrace.open("builtin:induction", backend="reference") as opened:
        yield opened


def test_there_are_methods():
    assert "alti" in METHODS


@pytest.mark.parametrize("method", METHODS)
def test_a_method_says_where_it_comes_from_and_what_its_scores_mean(method):
    row = plugins().method(method)
    for field in ("name", "title", "cost", "source", "needs"):
        assert getattr(row, field), field
    for field in attrs.fields(type(row.contract)):
        assert getattr(row.contract, field.name), field.name


@pytest.mark.parametrize("method", METHODS)
def test_an_answer_carries_its_method_its_contract_and_its_gap(method, model):
    found = model.influence(PROMPT, method=method)
    row = plugins().method(method)
    assert (found.method, found.contract) == (method, row.contract)
    assert (found.completeness_gap is None) == (row.completeness is None)
    document = found.to_json()
    assert document["method"] == method
    assert "completeness_gap" in document
    assert document["contract"] == attrs.asdict(row.contract)


@pytest.mark.parametrize("method", [name for name in METHODS if plugins().method(name).completeness])
def test_a_claimed_identity_holds_on_an_exact_capture(method, model):
    gap = model.influence(PROMPT, method=method).completeness_gap
    assert math.isfinite(gap)
    assert abs(gap) < 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_matter_is_exactly_nothing(method, model):
    """A later token is never a source."""
    scores = model.influence(PROMPT, method=method, position=3).scores
    assert not np.asarray(scores)[4:].any()


def test_a_derived_signal_says_so_too(model):
    trace = model.trace(PROMPT, capture=["blocks.0.attn.rot_q", "blocks.0.attn.rot_k"])
    assert trace["blocks.0.attn.pattern"].provenance.kind == "derived"
