"""An optimiser that changes int4 results (as in onnxsim #749, by a fusion that is on by default)."""

from __future__ import annotations

import pytest

for module in ("torch", "transformers", "llmtrace_onnxruntime"):
    pytest.importorskip(module)

from tests.comparison.golden.writing import optimiser


def test_a_fusion_that_rounds_is_named_and_the_level_below_it_agrees(tmp_path, answers):
    optimiser(tmp_path)
    shipped, basic = answers("2. An optimiser that changes int4")
    assert (shipped.code, shipped.document["verdict"]) == (0, "within_precision")
    assert "rounding activations to 8 bits" in shipped.headline and "predictions are changed" in shipped.headline
    assert any(
        "joins DequantizeLinear and MatMul" in note and "optimization=basic" in note
        for note in shipped.candidate["notes"]
    )
    assert (basic.code, basic.document["verdict"]) == (0, "agrees")
    assert not any("joins" in note for note in basic.candidate["notes"])
