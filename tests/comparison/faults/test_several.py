"""Several faults in one model are all told, each where it is; and one that is everywhere is told once, with its blocks."""

from __future__ import annotations

import pytest

for module in ("torch", "transformers", "llmtrace_torch"):
    pytest.importorskip(module)

from tests.comparison.faults.fault import Fault
from tests.comparison.faults.measure import Bench, compared
from tests.comparison.faults.rows.config import rope
from tests.comparison.faults.rows.tensors import change, heads_swapped

BOTH = Fault(
    "two faults", "qwen3", (), (), config=rope(rope_theta=500000.0),
    tensors=change("model.layers.2.self_attn.v_proj.weight", heads_swapped(2, 0, 1)),
)  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    made = Bench(tmp_path_factory.mktemp("several"))
    yield made
    made.close()


@pytest.mark.parametrize("column", ["float32", "bfloat16", "GGUF Q4_0", "ONNX"])
def test_two_faults_are_two_divergences_and_no_third(column, bench):
    if column.startswith("GGUF"):
        pytest.importorskip("llmtrace_llamacpp")
    if column == "ONNX":
        pytest.importorskip("llmtrace_onnxruntime")
    found = compared(bench, BOTH, column)
    assert [(each.site, each.layers) for each in found.divergences] == [
        ("blocks.0.attn.rot_q", (0, 1, 2)),
        ("blocks.0.attn.rot_k", (0, 1, 2)),
        ("blocks.2.attn.v", (2,)),
    ]
    assert "theta 500,000" in found.divergences[0].cause.words
    assert "swapped" in found.divergences[2].cause.words
    assert found.verdict == "diverges"


def test_what_follows_from_a_fault_is_inherited_and_not_told(bench):
    found = compared(bench, BOTH, "float32")
    sites = {each.site: each for each in found.sites}
    assert sites["logits"].status == "holds" and sites["logits"].inherited_error > 1e-2
    assert sites["blocks.1.resid_post"].status == "holds" and sites["blocks.1.resid_post"].inherited_error > 1e-2
    assert sites["blocks.0.attn.q"].inherited_error == 0
