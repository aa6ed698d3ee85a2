"""What was recorded at some tokens suffices for what follows at these tokens; what stands in the way is named."""

import numpy as np
import pytest

from llmtrace.errors import SignalUnavailableError
from llmtrace.model import Model
from llmtrace.selection import select
from llmtrace.trace import Trace
from tests.specs import CLEAR, SPECS, FakeSession, WeighedSession, capture, equations

IDS = [1, 4, 2, 4, 1]
AT = "blocks.0.attn."


def record(*selections, name="sequential", session=WeighedSession) -> Trace:
    return Model(session(equations(SPECS[name]))).trace(IDS, capture=list(selections))


def refusal(trace, site):
    with pytest.raises(SignalUnavailableError) as caught:
        trace[site]
    return str(caught.value)


def test_the_last_residual_at_one_token_gives_the_logits_there():
    trace = record(select("blocks.1.resid_post", tokens=[-1]))
    whole = capture(equations(SPECS["sequential"]), IDS)
    for site in ("ln_final.scale", "ln_final.out", "logits"):
        found = trace[site]
        np.testing.assert_allclose(found.array, whole[site][-1:], rtol=1e-12)
        assert str(found.provenance) == "derived(blocks.1.resid_post)"
        assert (found.cut.indices, found.part, found.whole) == (((4,), None), "tokens 4", False)
        assert trace.cut(site) == found.cut


@pytest.mark.parametrize("name", CLEAR)
def test_rows_of_everything_give_the_rows_of_each_that_reads_one_token_at_a_time(name):
    recorded = record(select("**", tokens=[3, 1]), name=name)
    whole = capture(equations(SPECS[name]), IDS)
    for site, signal in recorded.signals.items():
        others = {other: kept for other, kept in recorded.signals.items() if other != site}
        trace = Trace(recorded.model, recorded.spec, recorded.tokens, others, weights=recorded.weights)
        if site in ("embed", "pos_embed"):
            assert trace[site].whole  # the tokens alone suffice
        elif site.endswith((".scores", ".z")):
            assert site not in trace
        else:
            found = trace[site]
            axis = 0 if found.axes[0] == "token" else 1
            np.testing.assert_allclose(found.array, np.take(whole[site], (3, 1), axis), rtol=1e-12, err_msg=site)
            assert found.cut == signal.cut


def test_what_is_read_across_tokens_is_taken_whole_beside_rows_of_the_rest():
    trace = record(select(AT + "pattern", tokens=[2, 4]), AT + "v", session=FakeSession)
    found = trace[AT + "z"]
    np.testing.assert_allclose(found.array, capture(equations(SPECS["sequential"]), IDS)[AT + "z"][[2, 4]], rtol=1e-12)
    assert set(found.provenance.inputs) == {AT + "pattern", AT + "v"}


def test_a_pattern_follows_from_rows_of_its_scores():
    trace = record(select(AT + "scores", tokens=[-1]), session=FakeSession)
    expected = capture(equations(SPECS["sequential"]), IDS)[AT + "pattern"][:, -1:]
    np.testing.assert_allclose(trace[AT + "pattern"].array, expected, rtol=1e-12)
    assert trace[AT + "pattern"].cut.indices == (None, (4,), None)


def test_positions_of_the_rows_are_those_of_their_tokens():
    trace = record(select(AT + "q", tokens=[3]), session=FakeSession)
    expected = capture(equations(SPECS["sequential"]), IDS)[AT + "rot_q"][[3]]
    np.testing.assert_allclose(trace[AT + "rot_q"].array, expected, rtol=1e-12)


def test_the_whole_is_derived_where_it_can_be_and_else_the_most_rows():
    trace = record(
        select("blocks.0.mlp.pre", tokens=[0]), select("blocks.0.mlp.pre_linear", tokens=[0]), "blocks.0.ln2.out"
    )
    assert trace["blocks.0.mlp.post"].whole
    trace = record(select("blocks.0.mlp.{pre,pre_linear}", tokens=[0]), select("blocks.0.ln2.out", tokens=[2, 3]))
    assert trace.cut("blocks.0.mlp.post").indices == ((2, 3), None)


def test_rows_of_different_tokens_do_not_meet():
    trace = record(
        select("blocks.0.mlp.pre", tokens=[0]), select("blocks.0.mlp.pre_linear", tokens=[1]), session=FakeSession
    )
    assert "blocks.0.mlp.post" not in trace
    said = refusal(trace, "blocks.0.mlp.post")
    assert "blocks.0.mlp.pre was recorded in part only (tokens 0)" in said
    assert "blocks.0.mlp.pre_linear was recorded in part only (tokens 1)" in said


def test_no_rows_are_no_ground():
    assert "logits" not in record(select("blocks.1.resid_post", tokens=[]))


def test_a_cut_signal_in_the_way_is_named_with_what_was_kept_of_it():
    trace = record(select(AT + "rot_q", heads=[1]), AT + "rot_k", session=FakeSession)
    assert refusal(trace, AT + "pattern") == (
        f"{AT}pattern cannot be derived: {AT}rot_q was recorded in part only (heads 1): record it whole."
    )


def test_of_signals_with_the_same_rows_those_are_named_that_are_read_across_them():
    trace = record(select(AT + "{pattern,v}", tokens=[1]), session=FakeSession)
    assert refusal(trace, AT + "z") == (
        f"{AT}z cannot be derived: {AT}v was recorded in part only (tokens 1): record it whole."
    )


def test_what_is_missing_besides_is_named_too():
    said = refusal(record(select(AT + "q", channels=[0]), session=FakeSession), AT + "scores")
    assert "missing" in said and f"{AT}q was recorded in part only (channels 0): record it whole" in said


def test_what_was_not_captured_is_said_with_what_to_capture():
    trace = record(AT + "rot_q", session=FakeSession)
    assert refusal(trace, AT + "scores") == (
        f"{AT}scores cannot be derived: {AT}rot_k was not captured: add it, or {AT}k, to capture=."
    )
