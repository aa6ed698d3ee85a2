"""Attention that ONNX Runtime's optimiser has fused with its matrix or its biases is the attention that it was made of."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytest.importorskip("llmtrace_onnxruntime")

import onnx
from onnx import helper

import llmtrace
from llmtrace.families import spec_of
from llmtrace.testing.tiny import TINY
from tests.backends.onnxruntime.opening import differences, opaque, open_graph, write
from tests.backends.onnxruntime.reading.opened import Opened, altered, differing, error, violated
from tests.backends.onnxruntime.repacked import into_attention, into_biased, saved
from tests.backends.onnxruntime.test_renaming import hold_the_same
from tests.backends.onnxruntime.written import TOKENS, drawn

FORMS = {
    "without a mask": (into_attention, {"mask": ""}), "tokens that count": (into_attention, {}), "how many count": (into_attention, {"mask": "lengths"}),
    "by query and key": (into_attention, {"mask": "pairs"}), "added": (into_attention, {"mask": "added"}), "a past": (into_attention, {"past": True}),
    "biases alone": (into_biased, {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """GPT-2, whose blocks have scales of their own, with an operator for attention; and what it was written from."""
    source = drawn(spec_of({"model_type": "gpt2", **TINY["gpt2"]}))
    return write(source, tmp_path_factory.mktemp("written") / "given", "multihead"), source


@pytest.mark.parametrize("form", FORMS)
def test_it_is_what_it_was_made_of(form, written, tmp_path):
    path, source = written
    change, options = FORMS[form]
    one = Opened(open_graph(saved(path, tmp_path / "fused", change, **options)), source)
    assert [each for each in differences(one.model.spec, source.spec) if "family" not in each] == []
    assert not altered(one)
    assert not differing(one, derived=True)
    assert not violated(one.model)


def test_what_stays_inside_is_derived_and_what_comes_out_can_be_edited(written, tmp_path):
    path, _ = written
    model = open_graph(saved(path, tmp_path / "fused", into_attention))
    trace = model.trace(list(TOKENS))
    assert {
        trace[f"blocks.1.attn.{site}"].provenance.kind for site in ("q", "k", "v", "rot_q", "scores", "pattern")
    } == {"derived"}
    assert {trace[f"blocks.1.attn.{site}"].provenance.kind for site in ("z", "out")} <= {"captured", "converted"}
    edits = [llmtrace.ablate("blocks.1.attn.z", heads=[2])]
    fused, apart = (each.trace(list(TOKENS), edits=edits) for each in (model, open_graph(path)))
    assert error(fused["logits"].array, apart["logits"].array) < 1e-6
    assert error(fused["logits"].array, trace["logits"].array) > 1e-3


def test_its_names_do_not_matter(written, tmp_path):
    path = saved(written[0], tmp_path / "fused", into_attention, past=True)
    hold_the_same(open_graph(path), path, tmp_path / "renamed")


def test_padding_that_hides_tokens_of_the_prompt_is_no_attention_that_is_known(written, tmp_path):
    def last_three(graph):
        into_attention(graph, mask="lengths")
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([3], np.int32), "three"))
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name == "lengths" and node.op_type == "Attention":
                    node.input[place] = "three"

    model = open_graph(saved(written[0], tmp_path / "fused", last_three))
    assert opaque(model.spec)[0] == "blocks.0.attn"
    assert any("mask is none that is known" in note for note in model.info.notes)


def test_one_that_turns_q_and_k_itself_is_refused_by_its_name():
    """No kernel of a CPU does that, so a graph with it is not even run."""
    from llmtrace.dataflow.graph import Vertex
    from llmtrace.dataflow.reading.fused import _counts
    from llmtrace.dataflow.reading.reader import Unreadable

    node = helper.make_node("Attention", ["x", "W"], ["y"], num_heads=2, do_rotary=1)
    with pytest.raises(Unreadable, match=r"com\.microsoft\.Attention turns q and k itself"):
        _counts(None, Vertex(0, node.op_type, "com.microsoft", ("x", "W"), ("y",), {"num_heads": 2, "do_rotary": 1}))
