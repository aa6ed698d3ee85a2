"""Rows of q and k in the checkpoint's order, in a GGUF file whose architecture has them in another (transformers #31766, llama.cpp #3364)."""

from __future__ import annotations

import pytest

for module in ("torch", "transformers", "llmtrace_torch", "llmtrace_llamacpp"):
    pytest.importorskip(module)

from tests.comparison.golden.writing import permutation


def test_the_matrices_are_named_with_what_was_done_to_their_rows(tmp_path, answers):
    permutation(tmp_path)
    (found,) = answers("6. Rows of q and k that were not permuted")
    assert found.code == 1
    first = found.candidate["first_divergence"]
    assert (first["site"], first["kind"]) == ("blocks.0.attn.q", "weights")
    assert first["cause"]["words"] == "blocks.0.attn.W_Q: rows of each head permuted: rotary pairs half a head apart"
    bad = {each["name"] for each in found.candidate["tensors"] if not each["explained"]}
    assert bad == {f"blocks.{layer}.attn.{name}" for layer in range(3) for name in ("W_Q", "W_K")}
