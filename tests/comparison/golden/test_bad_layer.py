"""One tensor that is quantised worse than the others: it went through 3 bits before it was stored in 8."""

from __future__ import annotations

import numpy as np
import pytest

for module in ("torch", "transformers", "llmtrace_torch", "llmtrace_llamacpp"):
    pytest.importorskip(module)

from tests.comparison.golden.writing import BAD, bad_layer


def test_the_tensor_is_named_by_how_much_worse_it_is_than_its_format(tmp_path, answers):
    model, squeezed = bad_layer(tmp_path)
    (found,) = answers("8. One badly quantised layer")
    assert found.code == 1
    first = found.candidate["first_divergence"]
    assert (first["site"], first["kind"], first["layers"]) == ("blocks.1.mlp.out", "weights", [1])
    assert first["cause"]["words"].startswith(f"{BAD} is off by 6") and "what Q8_0 explains" in first["cause"]["words"]
    (bad,) = [each for each in found.candidate["tensors"] if not each["explained"]]
    size = np.linalg.norm(model.weights[BAD])
    assert bad["name"] == BAD and bad["relative_error"] == pytest.approx(
        np.linalg.norm(squeezed - model.weights[BAD]) / size, rel=0.01
    )
