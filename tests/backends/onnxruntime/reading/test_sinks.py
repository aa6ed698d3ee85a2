"""Attention sinks: a column of each head's learned logit, put beside the scores and left out of the pattern."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytest.importorskip("llmtrace_onnxruntime")

from onnx import helper, numpy_helper

import llmtrace
from llmtrace.spec import Clamp, Mixer
from tests.backends.onnxruntime.reading.opened import altered, differing, exported, open_graph, opened, unlike, violated
from tests.backends.onnxruntime.test_writing_features import FEATURES
from tests.backends.onnxruntime.written import TOKENS


@pytest.mark.parametrize("feature", ["sinks", "sinks and a window"])
def test_sinks_are_what_they_were_written_from(feature, tmp_path):
    one = opened(FEATURES[feature], tmp_path)
    assert one.module["attn"] == FEATURES[feature].blocks[0].branches[0].module
    assert not altered(one)
    assert not differing(one)
    assert not violated(one.model)


def test_scores_come_before_the_column_and_the_pattern_after_it_is_dropped(tmp_path):
    trace = opened(FEATURES["sinks"], tmp_path).model.trace(list(TOKENS))
    scores, pattern, sink = (trace[f"blocks.0.attn.{site}"] for site in ("scores", "pattern", "sink"))
    assert scores.array.shape == pattern.array.shape == (4, len(TOKENS), len(TOKENS))
    assert pattern.provenance.kind == "captured"
    np.testing.assert_allclose(pattern.array.sum(-1) + sink.array, 1, atol=1e-6)
    assert 0 < sink.array.min() < 0.1 < sink.array.max() < 1


def test_gpt_oss_is_what_torch_computes(tmp_path):
    """Its sinks, its windows, its experts with biases, and their clamp; the largest score is taken off before its softmax."""
    pytest.importorskip("llmtrace_torch")
    checkpoint, path = exported("gpt_oss", tmp_path, num_hidden_layers=2)
    theirs, ours = llmtrace.open(str(checkpoint), backend="torch"), open_graph(path)
    assert ours.spec.blocks[0].branches[0].module.sinks
    assert ours.spec.blocks[0].branches[1] == theirs.spec.blocks[0].branches[1]
    assert ours.spec.blocks[0].branches[1].module.expert.clamp == Clamp(0.8, 1.0)
    assert not unlike(ours.trace(list(TOKENS)), theirs.trace(list(TOKENS)))
    assert all(np.array_equal(ours.weights[name], array) for name, array in theirs.weights.items())


def _multiplied(graph):
    """Every sink times e."""
    for place, node in reversed(list(enumerate(graph.node))):
        if node.op_type == "Expand" and any(
            node.output[0] in each.input for each in graph.node if each.op_type == "Concat"
        ):
            graph.initializer.append(numpy_helper.from_array(np.float32(np.e), f"more {place}"))
            made, node.output[0] = node.output[0], f"sink {place}"
            graph.node.insert(place + 1, helper.make_node("Mul", [f"sink {place}", f"more {place}"], [made]))


def test_sinks_that_stand_nowhere_as_they_work_are_opaque(tmp_path):
    """Changed by a number before they take part: their constant is not the logit."""
    one = opened(FEATURES["sinks"], tmp_path, change=_multiplied)
    assert isinstance(one.module["attn"], Mixer)
    assert any("the logits of its sinks stand nowhere" in note for note in one.model.info.notes)
    assert not violated(one.model)
