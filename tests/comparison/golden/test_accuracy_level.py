"""ONNX Runtime's `accuracy_level` 4 on massive activations (onnxruntime #29849)."""

from __future__ import annotations

import numpy as np
import pytest

for module in ("torch", "transformers", "llmtrace_onnxruntime"):
    pytest.importorskip(module)

import onnx
import onnxruntime

from tests.comparison.faults.bases import PROMPT
from tests.comparison.golden.writing import accuracy_level


def test_activations_of_8_bits_change_predictions_within_what_they_cost(tmp_path, answers):
    path = accuracy_level(tmp_path)
    shipped, without = answers("1. Activations rounded to 8 bits")
    assert (shipped.code, shipped.document["verdict"]) == (0, "within_precision")
    assert shipped.headline.startswith("within what rounding activations to 8 bits (q8_0) explains")
    assert {each["status"] for each in shipped.candidate["sites"]} == {"holds"}
    (advice,) = [note for note in shipped.candidate["notes"] if "accuracy_level 4" in note]
    assert "prepacking=false" in advice
    assert f"; even so, {_changed(path)} of {len(PROMPT)} predictions are changed" in shipped.headline
    assert (without.code, without.document["verdict"]) == (0, "agrees")
    _only_products_carry_it(shipped)


def _only_products_carry_it(shipped):
    """Most of all those that read the large channel."""
    carried = {each["site"]: each["local_error"] for each in shipped.candidate["sites"] if each["local_error"] > 1e-3}
    ends = ("attn.q", "attn.k", "attn.v", "attn.out", "mlp.pre", "mlp.pre_linear", "mlp.out", "logits")
    assert all(site.endswith(ends) for site in carried)
    assert max(carried, key=carried.get).startswith("blocks.0.mlp.pre")
    assert max(carried.values()) > 5 * carried["blocks.0.attn.out"]  # which reads no stream


def _changed(path) -> int:
    """Predictions that ONNX Runtime itself changes, between a file with `accuracy_level` 1, which is float32, and with 4."""
    model = onnx.load(path)
    found = []
    for level in (1, 4):
        for node in model.graph.node:
            for attribute in node.attribute:
                if attribute.name == "accuracy_level":
                    attribute.i = level
        tokens = np.array([PROMPT], np.int64)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {"input_ids": tokens, "attention_mask": np.ones_like(tokens)})
        found.append(logits[0].argmax(-1))
    changed = int((found[0] != found[1]).sum())
    assert changed > 1
    return changed
