"""Positions counted from one: all distances are the same, so nothing but the turned vectors differs."""

from __future__ import annotations

import numpy as np
import pytest

for module in ("torch", "transformers", "llmtrace_torch"):
    pytest.importorskip(module)

import llmtrace
from tests.comparison.faults.bases import PROMPT
from tests.comparison.golden.models import read, write_checkpoint
from tests.comparison.golden.writing import positions


def test_an_offset_is_named_and_called_harmless_where_scores_and_logits_agree(tmp_path, answers):
    positions(tmp_path)
    (found,) = answers("10. Positions off by one")
    assert found.code == 1
    first = found.candidate["first_divergence"]
    assert (first["site"], first["cause"]["harmless"]) == ("blocks.0.attn.rot_q", True)
    assert first["cause"]["words"] == "positions counted from 1 instead of 0"
    assert found.headline.startswith(
        "diverges at blocks.0.attn.rot_q: positions counted from 1 instead of 0; harmless in this run"
    )
    assert {each["site"].rpartition(".")[2] for each in found.candidate["divergences"]} == {"rot_q", "rot_k"}
    (outputs,) = found.candidate["outputs"]
    assert outputs["same_top"] == 1 and outputs["worst_kld"] < 1e-9


def test_a_graph_that_counts_from_one_is_compared_where_heads_meet_and_says_what_was_not_read(tmp_path):
    pytest.importorskip("llmtrace_onnxruntime")
    path = _write_from_one(write_checkpoint("llama", tmp_path))
    found = llmtrace.compare(f"torch:{tmp_path / 'checkpoint'}", path, prompts=[PROMPT])
    (candidate,) = found.candidates
    first = candidate.first_divergence
    assert first.site == "blocks.0.attn.rot_q" and first.cause.harmless
    assert first.cause.words == "positions counted from 1 instead of 0"
    assert {each.site.rpartition(".")[2] for each in candidate.divergences} == {"rot_q", "rot_k"}
    assert candidate.spec == ()  # what could not be read is no difference
    assert [tensor.name for tensor in candidate.tensors if not tensor.explained] == []
    notes = [note for note in candidate.notes if "captured as a whole" in note]
    assert len(notes) == 3 and all("position 0 is turned" in note for note in notes)
    whole = {each.site for each in candidate.sites if each.status == "holds"}
    assert {f"blocks.{layer}.resid_mid" for layer in range(3)} <= whole


def _write_from_one(checkpoint):
    """A graph that turns its first token as if it were the second."""
    import onnx
    from onnx import helper, numpy_helper

    from llmtrace_onnxruntime.writing import write_onnx

    path = write_onnx(read(checkpoint), checkpoint.with_name("model.onnx"))
    model = onnx.load(path)
    graph = model.graph
    (places,) = [node for node in graph.node if node.op_type == "Range"]
    (cast,) = [node for node in graph.node if node.op_type == "Cast" and node.input[0] == places.output[0]]
    graph.initializer.append(numpy_helper.from_array(np.asarray(1, np.int64), "one"))
    graph.node.insert(list(graph.node).index(cast), helper.make_node("Add", [places.output[0], "one"], ["from one"]))
    cast.input[0] = "from one"
    onnx.save(model, path)
    return path
