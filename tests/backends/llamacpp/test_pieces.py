"""A prompt that the graph computes in several runs: the same signals, bits and edits as in one, and no more held than was asked for."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmtrace
from llmtrace.edits import add, replace
from llmtrace.errors import OptionError
from llmtrace.schema.steps import steps
from llmtrace.selection import Pick, cut
from llmtrace_llamacpp.pieces import Pieces
from tests.backends.llamacpp.tiny import MODELS, changed, write_gguf

TOKENS = [int(token) for token in np.random.default_rng(0).integers(0, 90, 52)]
SPLITS = [{"micro_batch": 7, "batch": 20}, {"micro_batch": 13}, {"batch": 45}]
"""None leaves a single token: that is multiplied by another kernel."""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    models, paths = [], {}

    def open(name, preset="exact", config=None, **options):
        family, overrides = MODELS[name]
        key = (name, *map(str, (config or {}).items()))
        if key not in paths:
            path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
            paths[key] = write_gguf(changed(family, **(overrides | (config or {}))), path)
        models.append(llmtrace.open(paths[key], backend="llamacpp", preset=preset, options={"guard": False, **options}))
        return models[-1]

    yield open
    for model in models:
        model.close()


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "mixtral", "phi3"])
@pytest.mark.parametrize("preset", ["exact", "shipped"])
def test_every_signal_is_bit_for_bit_that_of_one_run(opened, name, preset):
    whole = opened(name, preset).trace(TOKENS)
    for split in SPLITS:
        model = opened(name, preset, **split)
        trace = model.trace(TOKENS)
        for site, signal in whole.signals.items():
            np.testing.assert_array_equal(trace[site].array, signal.array, site)
        assert [error.site for error in model.verify(TOKENS) if error.status == "violated"] == []


def test_single_tokens_are_computed_by_other_kernels_within_rounding(opened):
    whole = opened("llama").trace(TOKENS)
    trace = opened("llama", micro_batch=1).trace(TOKENS)
    for site, signal in whole.signals.items():
        finite = np.isfinite(signal.array)
        size = np.abs(signal.array[finite]).max()
        np.testing.assert_allclose(trace[site].array, signal.array, rtol=0, atol=2e-5 * size, err_msg=site)


@pytest.mark.parametrize("tokens", [[-1], [20, 3, 49, 6], [6, 7]])
def test_cut_rows_come_in_the_order_asked_for(opened, tokens):
    chosen = llmtrace.select("blocks.*.attn.{pattern,rot_q}", "blocks.*.resid_post", heads=[2, 1], tokens=tokens)
    whole = opened("llama").trace(TOKENS, capture=chosen)
    trace = opened("llama", micro_batch=7).trace(TOKENS, capture=chosen)
    for site, signal in whole.signals.items():
        np.testing.assert_array_equal(trace[site].array, signal.array, site)


def test_edits_reach_what_later_runs_compute(opened):
    made = [
        replace("blocks.0.attn.pattern", 0.0, heads=[1], tokens=[5, 30]),
        add("blocks.0.resid_post", np.arange(64) / 64, tokens=[2, 40]),
    ]
    whole = opened("llama").trace(TOKENS, edits=made)
    trace = opened("llama", micro_batch=7).trace(TOKENS, edits=made)
    for site, signal in whole.signals.items():
        np.testing.assert_array_equal(trace[site].array, signal.array, site)
    bare = opened("llama", micro_batch=7).trace(TOKENS, capture="logits")["logits"].array
    last = trace["logits"].array - bare
    assert (
        not last[:2].any() and np.abs(last[51]).max() > 1e-3
    )  # position 2 is changed in the first run, and read in the last


def test_attention_to_what_is_computed_later_is_refused(opened):
    ahead = np.zeros(52)
    ahead[30] = 1.0
    edit = replace("blocks.0.attn.pattern", ahead, tokens=[3])
    assert opened("llama").trace(TOKENS, edits=[edit], capture="logits")
    with pytest.raises(OptionError, match=r"position 0 attend .*micro_batch .* 52"):
        opened("llama", micro_batch=7).trace(TOKENS, edits=[edit], capture="logits")


def test_of_a_pattern_only_the_rows_asked_for_are_held(opened):
    model = opened("llama", config={"max_position_embeddings": 1024}, micro_batch=64)
    prompt = (TOKENS * 21)[:1024]
    chosen = llmtrace.select("blocks.*.attn.pattern", tokens=[-1])
    model.trace(prompt[:2], capture=chosen)
    tracemalloc.start()
    model.trace(prompt, capture=chosen)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    run = 64 * 1024 * model.spec.blocks[0].attention.heads * 4
    logits = 1024 * model.spec.vocab * 4
    assert peak < 3 * run + 3 * logits  # the patterns of one layer alone are 16 runs


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_cut_of_any_signal_is_put_together_from_any_runs(data):
    table = steps(changed("llama").spec)
    site = data.draw(st.sampled_from(["blocks.1.attn.pattern", "blocks.1.attn.rot_k", "blocks.1.resid_post"]))
    tokens = data.draw(st.integers(1, 12))
    size = data.draw(st.integers(1, 13))
    some = st.none() | st.lists(st.integers(0, tokens - 1), max_size=5)
    wanted = cut(table[site], Pick(site, data.draw(st.none() | st.just([3, 0])), None, data.draw(some)), tokens)
    signal = np.random.default_rng(0).normal(size=table[site].shape(tokens)).astype(np.float32)
    if site.endswith("pattern"):
        signal = np.tril(signal)
    pieces = Pieces.empty(wanted, table[site], tokens, np.float32)
    for first in range(0, tokens, size):
        rows = range(first, min(first + size, tokens))
        part = signal[:, first : rows.stop, : rows.stop] if site.endswith("pattern") else signal[first : rows.stop]
        pieces.put(part, rows)
    np.testing.assert_array_equal(pieces.array, wanted.apply(signal))


class TestRoom:
    LONG = {"original_max_position_embeddings": 300, "max_position_embeddings": 1024}

    @pytest.mark.parametrize("counts", [(20, 270, 310, 20), (310, 20)])
    def test_longrope_is_of_the_prompts_own_context_whatever_ran_before(self, opened, counts):
        model = opened("longrope", config=self.LONG)
        for count in counts:
            verdicts = model.verify((TOKENS * 7)[:count])
            assert [error.site for error in verdicts if error.status == "violated"] == []

    def test_a_context_that_was_asked_for_decides_instead(self, opened):
        roomy = opened("longrope", config=self.LONG, context=1024)
        assert [error.site for error in roomy.verify(TOKENS) if error.status == "violated"] == []
        rotary = roomy.spec.blocks[0].attention.rotary
        assert rotary.scaling.short == rotary.scaling.long
        own = opened("longrope", config=self.LONG)
        assert own.spec.blocks[0].attention.rotary.scaling.short != rotary.scaling.long
        there = "blocks.0.attn.rot_q"
        assert not np.allclose(roomy.trace(TOKENS)[there].array, own.trace(TOKENS)[there].array, atol=1e-3)
