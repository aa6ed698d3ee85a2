"""The page of a trace."""

import base64

import numpy as np
import pytest

import llmtrace
from llmtrace.errors import TraceFileError
from llmtrace.selection import select
from llmtrace.view import trace as view
from llmtrace.view.signals import groups, runs
from tests.view.test_page import content, read

PATTERN = "blocks.*.attn.pattern"


def weights(page, layer, head):
    """The rows of one head, from the page."""
    packed = np.frombuffer(base64.b64decode(page["patterns"][layer]["heads"][head]), "<u2") / page["units"]
    return dict(
        zip(page["queries"], np.split(packed, np.cumsum([query + 1 for query in page["queries"]])[:-1]), strict=True)
    )


def test_the_page_holds_every_pattern_to_within_its_rounding(trace):
    page = content(view.page_of_trace(trace))
    for layer in range(2):
        array = trace[f"blocks.{layer}.attn.pattern"].array
        for head in range(array.shape[0]):
            for query, row in weights(page, layer, head).items():
                np.testing.assert_allclose(row, array[head, query, : query + 1], atol=0.51 / page["units"])


def test_patterns_are_derived_where_only_queries_and_keys_were_recorded(model, trace):
    lean = model.trace([token.id for token in trace.tokens], capture=["blocks.*.attn.rot_q", "blocks.*.attn.rot_k"])
    page = content(view.page_of_trace(lean))
    assert page["patterns"][1]["provenance"].startswith("derived(")
    whole = trace["blocks.1.attn.pattern"].array
    np.testing.assert_allclose(weights(page, 1, 0)[4], whole[0, 4, :5], atol=1 / page["units"])


def test_heads_and_queries_that_were_cut_keep_their_numbers(model):
    cut = model.trace("a b c a b", capture=select(PATTERN, heads=[1], tokens=[2, -1]))
    page = content(view.page_of_trace(cut))
    last = len(cut.tokens) - 1
    assert page["queries"] == [2, last]
    assert page["patterns"][0]["numbers"] == [1]
    np.testing.assert_allclose(weights(page, 0, 0)[2], cut["blocks.0.attn.pattern"].array[0, 0, :3], atol=1e-4)


def test_patterns_that_follow_at_some_queries_only_are_shown_at_these(model, trace):
    lean = model.trace([token.id for token in trace.tokens], capture=select("blocks.*.attn.scores", tokens=[4, 2]))
    page = content(view.page_of_trace(lean))
    assert page["queries"] == [2, 4]
    whole = trace["blocks.1.attn.pattern"].array
    for query, row in weights(page, 1, 0).items():
        np.testing.assert_allclose(row, whole[0, query, : query + 1], atol=1 / page["units"])


def test_a_trace_without_patterns_says_so_and_lists_its_signals(model):
    page = content(view.page_of_trace(model.trace("a b", capture="logits")))
    assert not page["patterns"]
    assert "No attention patterns" in page["notes"][0]
    assert [signal["site"] for signal in page["signals"]] == ["logits"]


def test_a_long_trace_keeps_its_last_queries_and_says_so(trace, monkeypatch):
    monkeypatch.setattr(view, "PATTERN_BYTES", 2 * 2 * 2 * 11)  # room for 11 weights a head: rows of 6 and 5
    page = content(view.page_of_trace(trace))
    assert page["queries"] == [4, 5]
    np.testing.assert_allclose(weights(page, 1, 0)[4], trace["blocks.1.attn.pattern"].array[0, 4, :5], atol=1e-4)
    assert "from position 4 on" in page["notes"][0]


def test_a_weight_that_is_not_finite_is_carried_as_such(trace):
    from attrs import evolve

    site = "blocks.0.attn.pattern"
    array = trace[site].array.copy()
    array[0, 1, 0] = np.nan
    page = content(view.page_of_trace(evolve(trace, signals=trace.signals | {site: evolve(trace[site], array=array)})))
    assert np.frombuffer(base64.b64decode(page["patterns"][0]["heads"][0]), "<u2")[1] == page["units"] + 1


def test_the_page_of_a_saved_trace_is_that_of_the_trace(trace, tmp_path):
    import llmtrace

    trace.save(tmp_path / "t.trace")
    assert view.page_of_trace(llmtrace.load(tmp_path / "t.trace")) == view.page_of_trace(trace)


def test_it_parses_and_is_saved_atomically(trace, tmp_path):
    read(view.page_of_trace(trace))
    with pytest.raises(TraceFileError, match="no directory"):
        view.save_trace_page(tmp_path / "none" / "t.html", trace)
    view.save_trace_page(tmp_path / "t.html", trace)
    assert content((tmp_path / "t.html").read_text("utf-8"))["kind"] == "trace"


def test_groups_hold_every_signal_and_byte_once(trace):
    assert sum(group.bytes for group in groups(trace)) == trace.bytes
    named = [site for group in groups(trace) for site in select(group.site).resolve(trace.equations.steps)]
    assert sorted(named) == sorted(trace.signals)


def test_runs_of_numbers_are_drawn_together():
    assert runs([0, 1, 2, 5, 7, 8]) == "0..2,5,7..8"
    assert runs([3]) == "3"


def test_an_edited_trace_says_so_in_its_title_its_heading_and_its_facts(model):
    edited = model.trace("a b c", edits=[llmtrace.ablate("blocks.0.attn.z_post", heads=[1])])
    html = view.page_of_trace(edited)
    page = content(html)
    assert "<title>Edited trace of 4 tokens" in html
    assert page["edits"] == ["zero(blocks.0.attn.z_post, heads=1)"]
    assert ["edited", "zero(blocks.0.attn.z_post, heads=1)"] in page["facts"]
    assert "Edited" not in view.page_of_trace(model.trace("a b c")).split("</title>")[0]
