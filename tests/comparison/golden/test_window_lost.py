"""A window that is not in the graph, but in a file beside it (ONNX Runtime GenAI's builder, Mistral)."""

from __future__ import annotations

import json

import pytest

for module in ("torch", "transformers", "llmtrace_torch", "llmtrace_onnxruntime"):
    pytest.importorskip(module)

from tests.comparison.golden.models import read, write_checkpoint


def test_the_lost_window_is_named_with_the_file_that_still_has_it(tmp_path, answers):
    from llmtrace_onnxruntime.writing import write_onnx

    folder = tmp_path / "genai"
    folder.mkdir()
    write_onnx(read(write_checkpoint("mistral", tmp_path), window=None), folder / "model.onnx", "float32", "fused")
    decoder = {"filename": "model.onnx", "sliding_window": {"window_size": 5}}
    genai = {"model": {"type": "mistral", "context_length": 64, "decoder": decoder}}
    (folder / "genai_config.json").write_text(json.dumps(genai))
    (found,) = answers("5. A window lost in export")
    assert found.code == 1
    first = found.candidate["first_divergence"]
    assert first["site"] == "blocks.0.attn.z"  # one operator does all of attention: scores are none of its values
    assert first["cause"]["words"] == "window none instead of 5, as its own file says"
    assert any("a file beside the graph says a window of 5" in note for note in found.candidate["notes"])
