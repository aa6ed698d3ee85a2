"""A window that is not in the graph, but in a file beside it (ONNX Runtime GenAI's builder, Mistral)."""

from __future__ import annotations

import pytest

for module in ("torch", "transformers", "llmtrace_torch", "llmtrace_onnxruntime"):
    pytest.importorskip(module)

from tests.comparison.golden.writing import window_lost


def test_the_lost_window_is_named_with_the_file_that_still_has_it(tmp_path, answers):
    window_lost(tmp_path)
    (found,) = answers("5. A window lost in export")
    assert found.code == 1
    first = found.candidate["first_divergence"]
    assert first["site"] == "blocks.0.attn.z"  # one operator does all of attention: scores are none of its values
    assert first["cause"]["words"] == "window none instead of 5, as its own file says"
    assert any("a file beside the graph says a window of 5" in note for note in found.candidate["notes"])
