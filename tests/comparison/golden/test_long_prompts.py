"""A window that only long prompts reach (llama.cpp #12957: agreement at 3,000 tokens, not at 14,000)."""

from __future__ import annotations

import pytest

for module in ("torch", "transformers", "llmtrace_torch", "llmtrace_onnxruntime"):
    pytest.importorskip(module)

from tests.comparison.golden.writing import long_prompts


def test_short_prompts_agree_and_say_what_they_could_not_show(tmp_path, answers):
    long_prompts(tmp_path)
    short, long = answers("9. A window that only long prompts reach")
    assert (short.code, short.document["verdict"], short.candidate["divergences"]) == (0, "agrees", [])
    assert "but its file says blocks.*.attn.window none instead of 5, which nothing here showed" in short.headline
    assert any(note.startswith("No prompt is longer than the window of 5 tokens") for note in short.candidate["notes"])
    assert long.code == 1
    assert long.candidate["first_divergence"]["site"] == "blocks.0.attn.scores"
    assert long.candidate["first_divergence"]["cause"]["words"] == "window none instead of 5, as its own file says"
    assert not any("No prompt is longer" in note for note in long.candidate["notes"])
