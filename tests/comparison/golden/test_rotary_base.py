"""A wrong rotary base, in the config of a copy that was converted."""

from __future__ import annotations

import pytest

for module in ("torch", "transformers", "llmtrace_torch", "llmtrace_llamacpp"):
    pytest.importorskip(module)

from tests.comparison.golden.writing import rotary_base


def test_the_base_is_read_off_the_file_and_the_fault_is_where_q_and_k_are_turned(tmp_path, answers):
    rotary_base(tmp_path)
    (found,) = answers("3. A wrong rotary base")
    assert found.code == 1
    assert found.candidate["first_divergence"]["site"] == "blocks.0.attn.rot_q"
    assert (
        found.candidate["first_divergence"]["cause"]["words"]
        == "rotary theta 500,000 instead of 10,000, as its own file says"
    )
    assert [each["site"] for each in found.candidate["divergences"]] == ["blocks.0.attn.rot_q", "blocks.0.attn.rot_k"]
    assert [each["field"] for each in found.candidate["spec"]] == ["blocks.*.attn.rotary.theta"]
