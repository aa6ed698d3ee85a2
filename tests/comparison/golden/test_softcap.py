"""The soft cap of Gemma 2's scores, which an export of attention as one operator loses."""

from __future__ import annotations

import pytest

for module in ("torch", "transformers", "llmtrace_torch", "llmtrace_onnxruntime"):
    pytest.importorskip(module)

from tests.comparison.golden.writing import softcap


def test_scores_are_named_with_the_cap_that_is_missing(tmp_path, answers):
    softcap(tmp_path)
    (found,) = answers("4. A softcap that is dropped")
    assert found.code == 1
    first = found.candidate["first_divergence"]
    assert (first["site"], first["kind"]) == ("blocks.0.attn.scores", "code")
    assert first["cause"]["words"] == "softcap none instead of 2, as its own file says"
    assert len(found.candidate["divergences"]) == 1
