"""Some queries and heads of an attention, against the equations in float64, of which the rest is left out."""

import tracemalloc

import numpy as np
import pytest
from attrs import evolve

from llmtrace.schema import attending_rows as module
from llmtrace.schema.arithmetic import NumPy
from llmtrace.schema.attending_rows import attending_rows
from tests.schema.test_attending import KINDS, LENGTH, PLAIN, by_equations, inputs, wanted

QUERIES, CHOSEN = (149, 0, 77, 78, 5), (4, 1)


@pytest.mark.parametrize("heads", [None, CHOSEN])
@pytest.mark.parametrize("queries", [None, QUERIES])
@pytest.mark.parametrize("kind", KINDS)
def test_the_chosen_rows_are_those_of_the_whole(kind, queries, heads, monkeypatch):
    monkeypatch.setattr(module, "NUMPY", NumPy(3 * LENGTH))  # several chunks
    a = KINDS[kind]
    given = inputs(a)
    found = attending_rows(a, *given, wanted(a), queries, heads)
    expected = by_equations(a, *given)
    for name, array in found.items():
        part = expected[name][list(heads or range(a.heads))][:, list(queries or range(LENGTH))]
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, part, rtol=2e-5, atol=1e-6)


def test_double_precision_stays_double():
    q, k, _ = (each if each is None else each.astype(np.float64) for each in inputs(PLAIN))
    found = attending_rows(PLAIN, q, k, None, ["pattern"], QUERIES, None)["pattern"]
    np.testing.assert_allclose(found, by_equations(PLAIN, q, k, None)["pattern"][:, list(QUERIES)], rtol=1e-13)


def test_a_number_that_is_none_shows_where_it_is_seen_and_nowhere_else():
    q, k, _ = inputs(PLAIN)
    k[78, 0] = np.nan
    found = attending_rows(PLAIN, q, k, None, ["pattern"], (77, 78), None)["pattern"]
    assert np.isfinite(found[:, 0]).all()
    assert np.isnan(found[:2, 1]).any()
    assert np.isfinite(found[2:, 1]).all()


def test_memory_grows_with_what_is_asked_for_not_with_the_square_of_the_prompt():
    long = 3000
    a = evolve(PLAIN, softcap=1.5)
    given = inputs(a, long)
    tracemalloc.start()
    try:
        attending_rows(a, *given, ["pattern", "scores"], range(0, long, 300), None)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < long * long  # bytes: a quarter of one head's float32
