"""What was not recorded follows from what was, and says so."""

from __future__ import annotations

import numpy as np
import pytest

import llmtrace
from llmtrace.errors import SignalUnavailableError

AT = "blocks.1.attn."


@pytest.fixture(scope="module")
def model():
    with llmtrace.open("builtin:induction") as opened:
        yield opened


def test_a_pattern_follows_from_rotated_queries_and_keys(model):
    trace = model.trace("c a f c a", capture=[AT + "rot_q", AT + "rot_k"])
    found = trace[AT + "pattern"]
    assert found.provenance.kind == "derived"
    assert set(found.provenance.inputs) == {AT + "rot_q", AT + "rot_k"}
    assert str(found.provenance).startswith("derived(blocks.1.attn.rot_")
    np.testing.assert_array_equal(found.array, model.trace("c a f c a", capture=AT + "pattern")[AT + "pattern"].array)


def test_a_derived_signal_is_read_only(model):
    trace = model.trace("c a", capture=[AT + "rot_q", AT + "rot_k"])
    with pytest.raises(ValueError, match="read-only"):
        trace[AT + "pattern"].array[0] = 1


def test_what_is_missing_is_named(model):
    trace = model.trace("c a", capture=AT + "rot_q")
    assert AT + "pattern" not in trace
    with pytest.raises(SignalUnavailableError, match=r"cannot be derived: blocks\.1\.attn\.scores was not captured"):
        _ = trace[AT + "pattern"]


def test_one_query_does_not_suffice_for_its_pattern(model):
    trace = model.trace("c a", capture=[llmtrace.select(AT + "rot_q", tokens=[-1]), AT + "rot_k"])
    assert AT + "pattern" not in trace
