"""Which of a file's tensors a parameter is: under the name that transformers loads it by."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from safetensors.numpy import load_file

import llmtrace
from llmtrace_torch.tape.filed import loaded_as
from tests.benchmarks.coverage.tiny import tiny


@pytest.mark.parametrize(
    ("kind", "tensor", "parameter"),
    [("gpt_neox", "embed_out.weight", "lm_head.weight"), ("gemma3_text", "model.norm.weight", "model.norm.weight")],
)
def test_a_tensor_is_the_parameter_that_transformers_makes_of_it(kind, tensor, parameter):
    assert loaded_as([tensor], tiny(kind, "eager"))[tensor] == parameter


def test_a_tensor_without_the_prefix_of_the_base_model_gets_it():
    assert loaded_as(["layers.0.mlp.up_proj.weight"], tiny("llama", "eager")) == {
        "layers.0.mlp.up_proj.weight": "model.layers.0.mlp.up_proj.weight"
    }


def test_tensors_of_which_transformers_puts_together_another_are_none():
    assert not loaded_as(["model.layers.0.block_sparse_moe.experts.0.w1.weight"], tiny("mixtral", "eager"))


def test_a_weight_that_has_another_name_in_the_file_is_read_from_the_file(tmp_path):
    """What is changed in memory does not show."""
    tiny("gpt_neox", "eager").save_pretrained(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    unembedding = load_file(file)["embed_out.weight"]
    with llmtrace.open(tmp_path, backend="torch") as model:
        model.session.model.lm_head.weight.data.fill_(3)
        np.testing.assert_array_equal(model.weights["unembed.W_U"], unembedding.T)
