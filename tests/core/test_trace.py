"""A trace answers for what was recorded and for what follows from it, and says which is which."""

import numpy as np
import pytest

from llmtrace.errors import SignalUnavailableError, UnknownSignalError
from llmtrace.model import Model
from llmtrace.schema.steps import steps
from llmtrace.selection import select
from llmtrace.trace import Provenance, Signal, Trace
from tests.specs import SPECS, FakeSession, WeighedSession, capture, equations

IDS = [1, 4, 2, 4, 1]


def record(name="sequential", patterns=("**",), session=FakeSession, **cuts) -> Trace:
    return Model(session(equations(SPECS[name]))).trace(IDS, capture=select(*patterns, **cuts))


def by_hand(rot_q, rot_k, scale):
    """Causal attention of grouped heads, in loops."""
    length, heads, _ = rot_q.shape
    group = heads // rot_k.shape[1]
    pattern = np.zeros((heads, length, length))
    for head in range(heads):
        for query in range(length):
            logits = [scale * rot_q[query, head] @ rot_k[key, head // group] for key in range(query + 1)]
            exponentials = np.exp(np.array(logits) - max(logits))
            pattern[head, query, : query + 1] = exponentials / exponentials.sum()
    return pattern


def test_a_pattern_follows_from_queries_and_keys():
    trace = record(patterns=["blocks.0.attn.rot_q", "blocks.0.attn.rot_k"])
    derived = trace["blocks.0.attn.pattern"]
    expected = by_hand(trace["blocks.0.attn.rot_q"].array, trace["blocks.0.attn.rot_k"].array, 6**-0.5)
    np.testing.assert_allclose(derived.array, expected, rtol=1e-12, atol=1e-15)


def test_what_is_derived_says_so_and_from_what():
    trace = record(patterns=["blocks.0.attn.rot_q", "blocks.0.attn.rot_k"])
    assert str(trace["blocks.0.attn.pattern"].provenance) == "derived(blocks.0.attn.rot_q, blocks.0.attn.rot_k)"
    assert trace["blocks.0.attn.rot_q"].provenance.kind == "captured"
    assert set(trace) == {"blocks.0.attn.rot_q", "blocks.0.attn.rot_k"}


def test_what_is_recorded_is_not_derived_again():
    trace = record()
    assert trace["blocks.0.attn.pattern"] is trace.signals["blocks.0.attn.pattern"]


def test_what_does_not_suffice_is_refused_by_the_names_of_what_is_missing():
    trace = record(patterns=["blocks.0.attn.rot_q"])
    with pytest.raises(
        SignalUnavailableError,
        match=r"^blocks\.0\.attn\.pattern .*: blocks\.0\.attn\.scores was not captured: add it, or blocks\.0\.attn\.rot_k",
    ):
        trace["blocks.0.attn.pattern"]


def test_a_cut_signal_is_no_ground_for_a_derivation():
    trace = record(patterns=["blocks.0.attn.rot_q", "blocks.0.attn.rot_k"], heads=[0])
    with pytest.raises(SignalUnavailableError):
        trace["blocks.0.attn.pattern"]


def test_a_derivation_stays_within_one_block():
    trace = record(patterns=["blocks.0.resid_pre"], session=WeighedSession)
    assert "blocks.0.mlp.post" in trace
    assert "blocks.0.resid_post" in trace
    with pytest.raises(
        SignalUnavailableError, match=r"^blocks\.1\.resid_post .*: blocks\.1\.resid_mid was not captured"
    ):
        trace["blocks.1.resid_post"]


def test_a_derivation_does_not_run_the_model_from_its_tokens():
    trace = record(patterns=["logits"], session=WeighedSession)
    assert "embed" in trace
    with pytest.raises(SignalUnavailableError, match=r"blocks\.0\.ln1\.out was not captured"):
        trace["blocks.0.attn.q"]


def test_weights_at_hand_make_more_derivable():
    bare = record(patterns=["blocks.0.resid_pre"])
    assert "blocks.0.attn.q" not in bare
    with pytest.raises(SignalUnavailableError, match=r"the weight .*W_Q"):
        bare["blocks.0.attn.q"]
    model = equations(SPECS["sequential"])
    weighed = bare.with_weights(model.weights)
    np.testing.assert_allclose(weighed["blocks.0.attn.q"].array, capture(model, IDS)["blocks.0.attn.q"], rtol=1e-12)
    assert "blocks.0.attn.q" not in bare


def test_what_no_equation_computes_is_named():
    trace = record("mixer", patterns=["blocks.0.resid_pre"], session=WeighedSession)
    with pytest.raises(SignalUnavailableError, match=r"blocks\.0\.mixer_out \(opaque to the equations\)"):
        trace["blocks.0.resid_mid"]


def test_a_name_that_is_no_site_is_told_what_was_meant():
    with pytest.raises(UnknownSignalError, match=r"Did you mean blocks\.0\.attn\.pattern"):
        record()["blocks.0.attn.patern"]


def test_names_of_transformerlens_and_blocks_from_the_end_work_as_sites():
    trace = record()
    assert trace["blocks.0.attn.hook_pattern"] is trace["blocks.0.attn.pattern"]
    assert trace["blocks.-1.attn.pattern"] is trace["blocks.1.attn.pattern"]
    assert "blocks.0.attn.hook_pattern" in trace
    assert "blocks.-3.attn.pattern" not in trace
    assert "blocks.0.attn.hook_nonsense" not in trace


def test_a_pattern_of_several_sites_is_no_site():
    with pytest.raises(UnknownSignalError, match="names 2 sites"):
        record()["blocks.*.attn.hook_pattern"]


def test_arrays_are_read_only():
    trace = record()
    for site in ("blocks.0.attn.q", "blocks.0.attn.result"):
        with pytest.raises(ValueError, match="read-only"):
            (trace if site in trace.signals else record(session=WeighedSession))[site].array[...] = 0


def test_what_the_runtime_does_with_its_buffer_afterwards_does_not_matter():
    class Reusing(FakeSession):
        def hand_over(self, site, array, observer):
            buffer = array.copy()
            observer.signal(site, buffer)
            buffer[...] = 0

    trace = Model(Reusing(equations(SPECS["sequential"]))).trace(IDS)
    assert trace["embed"].array.any()


@pytest.mark.parametrize("name", SPECS)
def test_a_clean_trace_verifies(name):
    trace = record(name, session=WeighedSession)
    verdicts = trace.verify()
    assert {verdict.site for verdict in verdicts} == set(trace.signals)
    assert {verdict.status for verdict in verdicts} <= {"holds", "unchecked"}
    opaque = [site for site, step in steps(trace.spec).items() if step.equation.opaque]
    assert [verdict.site for verdict in verdicts if verdict.status == "unchecked"] == opaque


def test_derived_signals_are_not_judged():
    model = Model(WeighedSession(equations(SPECS["sequential"]), ["blocks.0.resid_pre", "blocks.0.attn.q", "logits"]))
    trace = model.trace(IDS, capture=["blocks.0.resid_pre", "blocks.0.attn.q", "blocks.0.attn.v"])
    assert trace["blocks.0.attn.v"].provenance.kind == "derived"
    assert [verdict.site for verdict in trace.verify()] == ["blocks.0.resid_pre", "blocks.0.attn.q"]


def test_a_trace_counts_its_bytes_and_shows_no_numbers():
    trace = record(patterns=["embed"])
    assert trace.bytes == len(IDS) * 12 * 8
    assert repr(trace["embed"]) == "<Signal embed [token=5 d_model=12] float64 captured>"


def test_an_array_in_a_file_is_read_when_it_is_asked_for_and_not_before():
    class InFile:
        shape, dtype, reads = (5, 12), np.dtype("float64"), 0

        def read(self):
            self.reads += 1
            return np.ones(self.shape)

    stored = InFile()
    recorded = record(patterns=["embed"])
    trace = Trace(
        recorded.model, recorded.spec, recorded.tokens, {"embed": Signal("embed", ("token", "d_model"), stored)}
    )
    assert trace.bytes == 480
    assert "blocks.0.resid_pre" in trace
    assert "float64" in repr(trace["embed"])
    assert stored.reads == 0
    assert trace["blocks.0.resid_pre"].array.all()
    assert stored.reads == 1


@pytest.mark.parametrize(
    ("provenance", "text"),
    [
        (Provenance("captured"), "captured"),
        (Provenance("converted", "heads split"), "converted(heads split)"),
        (Provenance("derived", inputs=("a", "b")), "derived(a, b)"),
    ],
)
def test_provenance_reads_as_the_papers_write_it(provenance, text):
    assert str(provenance) == text


def test_a_signal_is_an_array_to_numpy():
    signal = record(patterns=["embed"])["embed"]
    assert np.asarray(signal) is signal.array
    assert np.asarray(signal, np.float32).dtype == np.float32
    copied = np.array(signal)
    assert copied.flags.writeable and not np.shares_memory(copied, signal.array)
    with pytest.raises(ValueError, match="copy"):
        np.array(signal, np.float32, copy=False)
    np.testing.assert_array_equal(signal, signal.array)


@pytest.mark.parametrize("key", [0, ("resid_pre", 3), None, ["embed"]])
def test_a_key_that_is_no_name_is_told_that_sites_are_names(key):
    trace = record(patterns=["embed"])
    with pytest.raises(UnknownSignalError, match="A site is a name, such as"):
        trace[key]
    assert key not in trace


def test_a_trace_shows_itself_in_one_line():
    assert repr(record(patterns=["embed"])) == "<Trace of 'fake' (Fake): 5 tokens, 1 signals, 480 bytes>"


def test_experts_that_are_derived_are_integers_and_say_so():
    found = record("experts", patterns=["blocks.0.mlp.router"], session=WeighedSession)["blocks.0.mlp.expert_index"]
    assert (found.dtype, found.precision.storage) == (np.int64, "int64")
