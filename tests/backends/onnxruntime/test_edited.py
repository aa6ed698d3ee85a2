"""Edits of graphs whose operators do several things at once, of values that are several sites, and of what an edit before has changed."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("llmtrace_onnxruntime")

import llmtrace
from llmtrace.edits import ablate, add, replace, scale
from llmtrace.errors import OptionError
from llmtrace.testing import tiny_model
from llmtrace_onnxruntime import edited
from tests.backends.onnxruntime.opening import open_graph, same, signals, write
from tests.backends.onnxruntime.reading.opened import error
from tests.backends.onnxruntime.test_writing_features import FEATURES
from tests.backends.onnxruntime.written import drawn

ROUNDING = 2e-5
FAMILIES = {"plain": "gpt2", "fused": "llama", "multihead": "gemma", "onnx23": "qwen3"}
"""By style."""


class Pair:
    """A graph, and the reference on the model that it was written from."""

    def __init__(self, style, directory):
        self.tiny = tiny_model(FAMILIES[style], directory)
        self.graph = open_graph(write(self.tiny, directory / "graph", style))
        self.reference = llmtrace.open(directory, backend="reference")
        self.tokens = list(self.tiny.tokens)

    def off(self, *edits, capture=None):
        """How far signals are from the reference's under the same edits, where they are too far."""
        found, wanted = (
            model.trace(self.tokens, edits=edits, capture=capture) for model in (self.graph, self.reference)
        )
        errors = {
            site: error(found[site].array, wanted[site].array) for site in found.signals if site in wanted.signals
        }
        assert "logits" in errors
        return {site: each for site, each in errors.items() if each > ROUNDING}

    def moved(self, *edits):
        """How far the logits go."""
        before, after = (self.logits(*each) for each in ((), edits))
        return error(after, before)

    def logits(self, *edits):
        return np.array(self.graph.trace(self.tokens, edits=edits, capture=["logits"])["logits"].array)


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    one = Pair(request.param, tmp_path_factory.mktemp(request.param))
    yield one
    one.graph.close()


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    """Norms add what they norm; attention is one operator."""
    one = Pair("fused", tmp_path_factory.mktemp("skip norms"))
    yield one
    one.graph.close()


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """Nothing is turned, so that many values are several sites."""
    one = Pair("plain", tmp_path_factory.mktemp("shared"))
    yield one
    one.graph.close()


@pytest.mark.parametrize(
    "site", ["blocks.0.resid_mid", "blocks.1.resid_pre", "blocks.2.resid_post", "blocks.0.attn_out", "embed"]
)
def test_an_edit_of_the_stream_reaches_a_norm_that_adds(site, fused):
    ops = [node.op_type for node in fused.graph.session._runner.proto.graph.node]
    assert "SkipSimplifiedLayerNormalization" in ops
    edit = replace(site, np.linspace(-1, 1, 64), tokens=[1, -1])
    assert fused.moved(edit) > 1e-2
    assert not fused.off(edit)
    assert not fused.off(edit, capture=["logits"])


def test_sites_of_one_value_are_each_shown_as_edits_up_to_it_leave_it(gpt2):
    places = gpt2.graph.session._places
    shared = ("blocks.1.attn.q", "blocks.1.attn.rot_q")
    assert len({places[site][0] for site in shared}) == 1
    first, second = add(shared[0], 0.5), scale(shared[1], 3.0, heads=[2])
    assert not gpt2.off(first, second)
    before = signals(gpt2.graph, gpt2.tokens)
    after = signals(gpt2.graph, gpt2.tokens, edits=[first, second])
    assert np.allclose(after[shared[0]], before[shared[0]] + 0.5, atol=1e-5)
    assert np.allclose(after[shared[1]][:, 2], 3 * (before[shared[0]][:, 2] + 0.5), atol=1e-5)
    assert np.allclose(after[shared[1]][:, 1], before[shared[0]][:, 1] + 0.5, atol=1e-5)


def test_the_order_of_edits_of_one_value_is_that_of_its_sites(gpt2):
    """Not that in which they are named."""
    edits = [scale("blocks.0.attn_out", 2.0), add("blocks.0.attn.out", 1.0)]
    places = gpt2.graph.session._places
    assert places["blocks.0.attn_out"][0] == places["blocks.0.attn.out"][0]
    assert not gpt2.off(*edits)
    assert same(gpt2.logits(*edits), gpt2.logits(*reversed(edits)))


def test_a_site_after_an_edit_is_changed_from_what_the_edit_leaves(pair):
    edits = [
        add("blocks.0.resid_post", np.linspace(-1, 1, 64)),
        scale("blocks.1.attn.v", 1.5),
        add("blocks.1.mlp.post", 0.25),
        scale("blocks.2.resid_post", 0.5, tokens=[-1]),
        add("logits", 1.0, channels=[3]),
    ]
    assert not pair.off(*edits)
    assert not pair.off(*edits[:3])
    assert not pair.off(*edits, capture=["logits", "blocks.1.attn.v"])


def test_a_change_that_changes_nothing_leaves_the_logits_to_the_bit(pair):
    editable = [site for site in pair.graph.session.editable if not site.endswith("scores")]
    plain = pair.graph.session._editor._runner.run(pair.graph.session._inputs.arrays(pair.tokens), ["logits"])[
        "logits"
    ][0]
    assert error(plain, pair.logits()) < 1e-6
    if "Skip" not in str(pair.graph.session._runner.proto.graph.node):
        assert same(np.array(plain), pair.logits())
    for site in editable[1 :: len(editable) // 3]:
        assert same(pair.logits(scale(site, 1.0)), np.array(plain)), site
    assert same(pair.logits(*(add(site, 0.0) for site in editable)), np.array(plain))


def test_one_graph_serves_all_edits_of_a_kind_of_site(fused, monkeypatch):
    made = []
    inner = edited.patchable
    monkeypatch.setattr(edited, "patchable", lambda proto, kinds: made.append(set(kinds)) or inner(proto, kinds))
    editor = fused.graph.session._editor
    editor._edited.clear()
    for edit in (
        ablate("blocks.0.attn_out", tokens=[0]),
        scale("blocks.0.attn_out", 7.0),
        add("blocks.0.attn.out", 1.0),
    ):
        fused.logits(edit)
    assert len(made) == 1
    fused.logits(ablate("blocks.1.attn_out"), ablate("blocks.0.attn_out"))
    assert len(made) == 1, "the same value of another layer can be patched there, too"
    fused.logits(ablate("blocks.1.attn_out"), ablate("blocks.0.mlp_out"))
    assert len(made) == 2, "another kind takes another graph"
    for layer in range(3):
        for site in ("attn.q", "attn.k", "attn.z_post", "mlp.post"):
            fused.logits(ablate(f"blocks.{layer}.{site}"))
    assert len(editor._edited) == edited.MOST
    assert not fused.off(ablate("blocks.0.attn_out"))


def test_what_overwrites_is_not_told_what_was_there(fused, monkeypatch):
    """Else each further layer would take a run of its own."""
    edits = [ablate(f"blocks.{layer}.attn.z_post", heads=[1]) for layer in range(3)]
    assert not fused.off(*edits)
    runs = []
    inner = edited.Editor._patched
    monkeypatch.setattr(edited.Editor, "_patched", lambda self, *args: runs.append(args) or inner(self, *args))
    fused.logits(*edits)
    assert len(runs) == 1
    fused.logits(*edits[:2], scale("blocks.2.attn.z_post", 0.5, heads=[0]))
    assert len(runs) == 3, "one more to know what the third layer scales"


def test_lengths_may_differ_from_run_to_run(fused):
    for tokens in ([3], [4, 5, 6], fused.tokens):
        edit = add("blocks.1.resid_mid", 1.0, tokens=[-1])
        found, wanted = (
            model.trace(tokens, edits=[edit], capture=["logits"])["logits"].array
            for model in (fused.graph, fused.reference)
        )
        assert error(found, wanted) < ROUNDING


def test_a_number_that_is_too_large_for_half_precision_is_refused(tmp_path):
    with open_graph(write(drawn(FEATURES["nothing else"]), tmp_path, kind="float16")) as model:
        tokens = [5, 17, 3]
        with pytest.raises(OptionError, match=r"blocks\.0\.resid_mid larger than float16 can hold"):
            model.trace(tokens, edits=[add("blocks.0.resid_mid", 1e6)])
        before, after = (
            model.trace(tokens, edits=edits, capture=["logits"])["logits"].array.astype(np.float64)
            for edits in ([], [add("blocks.0.resid_mid", 0.0)])
        )
        assert np.abs(after - before).max() <= model.info.capture_tolerance * np.abs(before).max()
