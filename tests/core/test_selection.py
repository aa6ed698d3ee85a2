"""A selection says what to record: sites by pattern, and what of each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtrace.errors import LimitError, OptionError, PromptError, UnknownSignalError
from llmtrace.model import Model
from llmtrace.schema.steps import steps
from llmtrace.selection import Cut, Pick, as_selection, check_bytes, cut, select, size
from tests.specs import CLEAR, FakeSession, WeighedSession, equations, model, sequential, specs

DEEP = steps(model(*[sequential()] * 12))


def named(*patterns):
    return list(select(*patterns).resolve(DEEP))


def test_a_star_stays_within_one_part_of_a_name():
    assert named("blocks.*.attn.pattern") == [f"blocks.{layer}.attn.pattern" for layer in range(12)]
    assert named("blocks.3.*_out") == ["blocks.3.attn_out", "blocks.3.mlp_out"]
    assert named("*") == ["embed", "logits"]


def test_two_stars_cross_parts():
    assert named("blocks.0.**.scale") == ["blocks.0.ln1.scale", "blocks.0.ln2.scale"]


def test_a_range_has_both_ends():
    assert named("blocks.{4..8}.attn.z") == [f"blocks.{layer}.attn.z" for layer in range(4, 9)]
    assert named("blocks.{9..10}.resid_post") == ["blocks.9.resid_post", "blocks.10.resid_post"]


def test_a_range_may_stand_among_alternatives():
    assert named("blocks.{0,5..6, 11}.resid_post") == [f"blocks.{layer}.resid_post" for layer in (0, 5, 6, 11)]


def test_blocks_are_counted_from_the_end_by_negative_numbers():
    assert named("blocks.-1.attn.z", "blocks.-12.attn.z") == ["blocks.0.attn.z", "blocks.11.attn.z"]
    with pytest.raises(UnknownSignalError):
        named("blocks.-13.attn.z")


def test_a_number_is_never_the_beginning_of_a_longer_one():
    assert named("blocks.1.attn.z") == ["blocks.1.attn.z"]


@given(st.sets(st.integers(0, 11), min_size=1))
def test_sites_come_in_dataflow_order_whatever_the_order_of_patterns(layers):
    shuffled = [f"blocks.{layer}.resid_post" for layer in reversed(sorted(layers))]
    assert named("logits", *shuffled, "embed") == ["embed", *reversed(shuffled), "logits"]


@pytest.mark.parametrize(
    ("hook", "site"),
    [
        ("blocks.0.attn.hook_attn_scores", "blocks.0.attn.scores"),
        ("blocks.7.hook_mlp_out", "blocks.7.mlp_out"),
        ("blocks.0.ln1.hook_scale", "blocks.0.ln1.scale"),
        ("hook_embed", "embed"),
        ("blocks.-1.hook_resid_post", "blocks.11.resid_post"),
    ],
)
def test_a_transformerlens_name_is_ours_where_the_value_is_the_same(hook, site):
    assert named(hook) == [site]


def test_a_transformerlens_name_may_have_a_pattern_for_its_layer():
    assert named("blocks.*.hook_resid_pre") == named("blocks.*.resid_pre")
    assert named("blocks.{4..8}.attn.hook_z") == named("blocks.{4..8}.attn.z")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("blocks.*.hook_resid_*", "blocks.*.resid_*"),
        ("blocks.{4..8}.ln1.hook_*", "blocks.{4..8}.ln1.{scale,normalized}"),
        ("blocks.-1.attn.hook_{q,k}", "blocks.-1.attn.{q,k}"),
        ("**.hook_pattern", "**.pattern"),
        ("blocks.2.attn.hook_{z,result}", "blocks.2.attn.{z,result}"),
    ],
)
def test_a_pattern_of_transformerlens_names_is_the_sites_whose_hooks_it_matches(theirs, ours):
    assert named(theirs) == named(ours)


def test_all_hooks_of_attention_are_its_sites_and_what_it_reads():
    ours = "blocks.3.{ln1.out,attn.q,attn.k,attn.v,attn.rot_q,attn.rot_k,attn.scores,attn.pattern,attn.z,attn.out}"
    assert named("blocks.3.attn.hook_*") == named(ours)


def test_a_short_transformerlens_name_is_told_the_long_one():
    with pytest.raises(UnknownSignalError, match=r"has no site here.*Did you mean blocks\.L\.hook_resid_pre"):
        named("hook_resid_pre")


def test_what_a_cut_leaves_is_said_in_words():
    chosen = cut(DEEP["blocks.0.attn.k"], Pick("", heads=[3], channels=range(5), tokens=[-1]), 9)
    assert chosen.words(DEEP["blocks.0.attn.k"].axes) == "tokens 8, key/value heads 1, channels 0 1 2 3 4"
    many = cut(DEEP["blocks.0.attn.pattern"], Pick("", tokens=range(8)), 9)
    assert many.words(DEEP["blocks.0.attn.pattern"].axes) == "tokens 0 1 2 3 4 5 …, 8 in all"
    assert Cut((None, ())).words(("token", "vocab")) == "channels none"


def test_a_transformerlens_name_that_means_another_value_is_refused():
    with pytest.raises(UnknownSignalError, match="before the scale and the softcap"):
        named("unembed.hook_out")


@pytest.mark.parametrize("wrong", ["blocks.0.attn.patern", "blocks.0.atn.pattern", "blocks.99.attn.patterns"])
def test_a_near_miss_is_told_what_was_meant(wrong):
    with pytest.raises(UnknownSignalError, match=r"Did you mean .*blocks\.0\.attn\.pattern"):
        named(wrong)


def test_a_name_that_resembles_nothing_is_told_where_the_names_are():
    with pytest.raises(UnknownSignalError, match="llmtrace info"):
        named("zzz")


def test_an_open_brace_is_said():
    with pytest.raises(UnknownSignalError, match="not closed"):
        named("blocks.{0.attn.z")


def test_what_is_recorded_on_request_is_asked_for_by_its_own_name_only():
    assert "blocks.0.attn.result" not in named("**", "blocks.0.attn.*", "blocks.*.**")
    for pattern in (
        "blocks.0.attn.result",
        "blocks.{0..0}.attn.result",
        "blocks.0.attn.{z,result}",
        "blocks.0.attn.hook_result",
    ):
        assert "blocks.0.attn.result" in named(pattern)


def test_of_several_picks_of_one_site_the_last_counts():
    chosen = (select("**") | select("blocks.*.attn.z", heads=[1])).resolve(DEEP)
    assert chosen["blocks.0.attn.z"].heads == (1,)
    assert chosen["blocks.0.attn.q"].heads is None


def test_capture_takes_a_text_a_selection_or_several_of_both():
    both = as_selection(["embed", select("logits", tokens=[-1])])
    assert [(pick.pattern, pick.tokens) for pick in both.picks] == [("embed", None), ("logits", (-1,))]
    assert as_selection(None) == select("**")
    with pytest.raises(OptionError, match="capture="):
        as_selection(5)


@pytest.mark.parametrize("value", [3, [1.5], ["1"]])
def test_what_is_no_list_of_integers_is_refused(value):
    with pytest.raises(OptionError, match="lists of integers"):
        select("**", heads=value)


def test_tokens_cut_queries_and_never_keys():
    chosen = cut(DEEP["blocks.0.attn.pattern"], Pick("", tokens=[-1, 0]), 5)
    assert chosen.indices == (None, (4, 0), None)
    assert chosen.shape((4, 5, 5)) == (4, 2, 5)


def test_heads_of_a_key_value_signal_are_those_that_the_query_heads_read():
    pick = Pick("", heads=[3, 2, 0])  # four query heads share two key/value heads: 0, 1 read 0 and 2, 3 read 1
    assert cut(DEEP["blocks.0.attn.k"], pick, 5).indices[1] == (1, 0)
    assert cut(DEEP["blocks.0.attn.q"], pick, 5).indices[1] == (3, 2, 0)


def test_negative_heads_are_the_same_heads_counted_from_the_end():
    assert cut(DEEP["blocks.0.attn.v"], Pick("", heads=[0, -3]), 5).indices[1] == (0,)
    assert cut(DEEP["blocks.0.attn.v"], Pick("", heads=[-1]), 5).indices[1] == (1,)


def test_channels_cut_the_last_axis_where_it_counts_features():
    pick = Pick("", channels=[0, 2])
    assert cut(DEEP["blocks.0.mlp.post"], pick, 5).indices == (None, (0, 2))
    assert cut(DEEP["blocks.0.attn.pattern"], pick, 5).whole
    assert cut(DEEP["blocks.0.ln1.scale"], pick, 5).whole


def test_a_cut_that_leaves_nothing_out_is_whole():
    assert cut(DEEP["blocks.0.attn.z"], Pick("", heads=range(4), tokens=range(5)), 5).whole
    assert not cut(DEEP["blocks.0.attn.z"], Pick("", heads=[0, 1, 3, 2]), 5).whole


@pytest.mark.parametrize(
    ("pick", "error", "culprit"),
    [
        (Pick("", heads=[4]), OptionError, "head 4 is out of range at blocks.0.attn.k, which has 4"),
        (Pick("", heads=[-5]), OptionError, "head -5"),
        (Pick("", channels=[6]), OptionError, "d_head 6"),
        (Pick("", tokens=[5]), PromptError, "token 5"),
    ],
)
def test_an_index_out_of_range_is_an_error_that_names_it(pick, error, culprit):
    with pytest.raises(error, match=culprit):
        cut(DEEP["blocks.0.attn.k"], pick, 5)


@given(st.data())
def test_a_cut_is_what_numpy_indexing_gives(data):
    step = DEEP["blocks.0.attn.z"]
    array = np.arange(5 * 4 * 6).reshape(5, 4, 6)
    picks = [data.draw(st.none() | st.lists(st.integers(-size, size - 1), max_size=4)) for size in array.shape]
    tokens, heads, channels = picks
    expected = array
    for axis, part in enumerate(picks):
        expected = expected if part is None else np.take(expected, part, axis)
    chosen = cut(step, Pick("", heads, channels, tokens), 5)
    assert np.array_equal(chosen.apply(array), expected)
    assert chosen.shape(array.shape) == expected.shape


def test_a_run_of_indices_stays_a_view():
    array = np.zeros((5, 4, 6))
    assert np.shares_memory(cut(DEEP["blocks.0.attn.z"], Pick("", tokens=[2, 3]), 5).apply(array), array)


def test_over_the_limit_is_refused_with_the_number_and_the_way_out():
    with pytest.raises(LimitError, match=r"1,001 bytes.*1,000.*heads=.*--max-bytes"):
        check_bytes(1001, 1000)
    check_bytes(1000, 1000)
    check_bytes(10**15, None)


@given(specs(), st.data())
def test_bytes_known_before_the_run_are_those_recorded(spec, data):
    length = data.draw(st.integers(1, 6))
    ids = data.draw(st.lists(st.integers(0, spec.vocab - 1), min_size=length, max_size=length))
    dtype = data.draw(st.sampled_from(["float64", "float32", "float16"]))
    offers = [site for site in steps(spec) if not site.endswith((".scores", ".out", ".normalized", "resid_mid"))]
    session = WeighedSession(equations(spec), offers, dtype)
    chosen = select("**", heads=data.draw(st.none() | st.just([1])), tokens=data.draw(st.none() | st.just([-1])))
    opened = Model(session)
    promised = opened.plan(opened.tokens(ids), chosen).bytes
    assert promised == opened.trace(ids, capture=chosen).bytes
    with pytest.raises(LimitError):
        opened.trace(ids, capture=chosen, max_bytes=promised - 1)


@pytest.mark.parametrize("name", CLEAR)
def test_over_the_limit_nothing_is_run(name):
    session = FakeSession(equations(CLEAR[name]))
    with pytest.raises(LimitError):
        Model(session).trace([1, 2, 3], max_bytes=10)
    assert not session.runs


def test_the_size_of_a_cut_signal_is_that_of_what_is_left():
    step = DEEP["blocks.0.attn.pattern"]
    assert size(step, cut(step, Pick("", heads=[1], tokens=[-1]), 7), 7, 2) == 1 * 1 * 7 * 2
