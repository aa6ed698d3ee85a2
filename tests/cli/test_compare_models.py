"""`llmtrace compare` of two models that are different ones, and of one that holds a number that is none: one line each that says so."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llmtrace.data import embedded

SAME = "reference:builtin:induction"
TOKENS = "0,1,6,5,2,1,6"


def test_different_models_are_one_line_and_exit_code_2(cli, tmp_path):
    pytest.importorskip("transformers")
    from llmtrace.testing.tiny import write_tiny

    other = tmp_path / "llama"
    write_tiny("llama", other)
    for sides in ((SAME, f"reference:{other}"), (f"reference:{other}", SAME)):
        run = cli("compare", *sides, "--tokens", TOKENS)
        assert (run.code, run.out) == (2, "")
        (line,) = [line for line in run.err.splitlines() if line.startswith("error: ")]
        assert " is another model than " in line and "query heads instead of" in line and "a vocabulary of" in line


def test_the_first_line_names_the_weight_that_holds_nan(cli, tmp_path):
    shutil.copytree(embedded("induction"), tmp_path / "other")
    tensors = load_file(tmp_path / "other" / "model.safetensors")
    name = next(name for name in tensors if "layers.1" in name and "up_proj" in name)
    tensors[name] = tensors[name].copy()
    tensors[name][3, 5] = np.nan
    save_file(tensors, tmp_path / "other" / "model.safetensors", metadata={"format": "pt"})
    run = cli("compare", SAME, f"reference:{tmp_path / 'other'}", "--tokens", TOKENS)
    assert run.code == 1, run.err
    assert run.out.splitlines()[0] == "diverges at blocks.1.mlp.pre_linear: blocks.1.mlp.W_in: 1 number is NaN: [5, 3]"
