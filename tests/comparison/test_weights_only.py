"""Weights alone: formats by name, one that is stored otherwise, what files say, and whose weights stand for a trace's."""

from __future__ import annotations

import json
import shutil

import numpy as np
from safetensors.numpy import load_file, save_file

import llmtrace
from llmtrace.comparison.formats import Tensor
from llmtrace.comparison.weights_only import compare_weights_only, strays
from llmtrace.data import embedded

SAME = "reference:builtin:induction"


def copy(tmp_path, config=None, weights=None):
    directory = tmp_path / "other"
    shutil.copytree(embedded("induction"), directory)
    found = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(found | (config or {})))
    file = directory / "model.safetensors"
    if weights is not None:
        save_file(weights(load_file(file)), file, metadata={"format": "pt"})
    return f"reference:{directory}"


def of(kind, stored):
    return [Tensor(f"blocks.{layer}.{kind}", each, 0.0, 0.0, 0.0, True) for layer, each in enumerate(stored)]


def test_a_weight_that_alone_of_its_kind_has_another_format_is_told():
    mixed = of("attn.W_V", ["Q4_1"] * 5 + ["Q4_0"]) + of("attn.W_K", ["Q4_K", "Q6_K"] * 3) + of("ln1.w", ["F32", "F16"])
    assert strays(mixed) == ["blocks.5.attn.W_V is stored in Q4_0, the 5 others of its kind in Q4_1."]


def test_what_a_file_says_otherwise_is_told_though_its_weights_agree(tmp_path):
    rotary = {"rope_type": "default", "rope_theta": 10000.0}
    found = compare_weights_only(SAME, copy(tmp_path, config={"rope_parameters": rotary}))
    assert found.passed and found.verdict == "agrees"
    (one,) = found.candidates
    assert one.headline.endswith("; but its file says blocks.*.attn.rotary.theta 10,000 instead of 100,000,000")


def test_only_formats_of_tensors_that_differ_explain_anything(tmp_path):
    def halved(tensors):
        name = next(name for name in tensors if "layers.1" in name and "v_proj" in name)
        tensors[name] = (tensors[name] + np.float32(1e-5)).astype(np.float16)  # not a number that float16 has
        return tensors

    (one,) = compare_weights_only(SAME, copy(tmp_path, weights=halved)).candidates
    assert one.headline.startswith("within what float16 explains")
    same = f"reference:{tmp_path / 'other'}"
    assert compare_weights_only(same, same).verdict == "agrees"


def test_for_a_trace_its_model_s_weights_are_read_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    llmtrace.open(SAME).trace([0, 1, 6], capture="logits").save("phone.trace")
    doing = []
    found = compare_weights_only(SAME, "phone.trace", progress=doing.append)
    (one,) = found.candidates
    assert one.model.source == "phone.trace"
    assert any("holds no weights: those of builtin:induction" in note for note in one.notes)
    assert doing == ["opening reference:builtin:induction", "opening phone.trace", "phone.trace: the weights"]
    assert "holds no weights" in compare_weights_only("phone.trace", SAME).notes[0]


def test_it_says_its_verdict_in_a_line():
    found = compare_weights_only(SAME, SAME)
    assert str(found) == "builtin:induction: agrees: 21 tensors"
    assert repr(found) == "<WeightComparison with builtin:induction: builtin:induction: agrees: 21 tensors>"
    assert repr(found.candidates[0]) == "<WeightCandidate builtin:induction: agrees: 21 tensors>"
