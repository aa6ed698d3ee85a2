from __future__ import annotations

import re

import numpy as np
import pytest

for module in ("torch", "transformers", "onnx", "onnxruntime"):
    pytest.importorskip(module)

import torch
import transformers

from tests.backends.onnxruntime.exports import EXPORTERS, ExportError, NotInstalledError, cells, checkpoint, export
from tests.backends.onnxruntime.exports.__main__ import main
from tests.backends.onnxruntime.exports.architectures import PROMPT
from tests.backends.onnxruntime.exports.running import logits


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("exports")


def off(exporter, architecture, directory, tokens=PROMPT):
    """How far a cell's logits are from transformers', relative to the largest."""
    auto = transformers.AutoModelForCausalLM
    bare = auto.from_pretrained(checkpoint(architecture, directory), attn_implementation="eager").eval()
    with torch.no_grad():
        theirs = bare(torch.tensor([tokens])).logits[0].numpy()
    ours = logits(export(exporter, architecture, directory), tokens)
    return np.abs(ours - theirs[-len(ours) :]).max() / np.abs(theirs).max()


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "mistral", "mixtral"])
def test_a_traced_graph_computes_what_its_checkpoint_does_at_lengths_that_were_not_traced(architecture, directory):
    assert off("torchscript", architecture, directory) < 1e-5
    assert off("torchscript", architecture, directory, PROMPT[:4]) < 1e-5


@pytest.mark.parametrize("exporter", ["torchscript-sdpa", "torchscript-past", "torchscript-last"])
def test_so_do_its_other_forms(exporter, directory):
    assert off(exporter, "llama", directory) < 1e-5


def test_a_graph_of_the_last_token_has_one_row_of_logits(directory):
    assert logits(export("torchscript-last", "llama", directory), PROMPT).shape == (1, 97)


@pytest.mark.parametrize("rewriter", ["extended", "fused", "fp16", "int8", "int4"])
def test_a_rewritten_graph_is_another_that_computes_nearly_the_same(rewriter, directory):
    pytest.importorskip("sympy" if rewriter == "fused" else "onnx")
    exact = {"extended": 1e-5, "fused": 1e-5, "fp16": 0.01}.get(rewriter, 0.6)
    error = off(f"torchscript+{rewriter}", "llama", directory)
    assert error < exact
    assert (error > 1e-4) == (rewriter in ("fp16", "int8", "int4"))
    plain = export("torchscript", "llama", directory).read_bytes()
    assert export(f"torchscript+{rewriter}", "llama", directory).read_bytes() != plain


@pytest.mark.slow
def test_torchs_own_exporter_computes_what_the_checkpoint_does(directory):
    pytest.importorskip("onnxscript")
    assert off("dynamo-23-sdpa", "llama", directory) < 1e-5


def test_a_checkpoint_is_the_same_wherever_and_whenever_it_is_made(directory, tmp_path):
    first = checkpoint("gpt_oss", directory)
    torch.rand(3)  # whatever else draws numbers
    second = checkpoint("gpt_oss", tmp_path)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_cell_is_made_once(directory, monkeypatch):
    path = export("torchscript", "llama", directory)
    monkeypatch.setattr(cells, "_make", lambda *_: pytest.fail("it was made again"))
    assert export("torchscript", "llama", directory) == path


def test_a_refusal_says_why_and_leaves_nothing_behind(directory):
    with pytest.raises(ExportError, match="All tensors must have the same rank"):
        export("torchscript", "glm4", directory)
    assert {place.name for place in (directory / "torchscript").iterdir()} <= {
        "llama",
        "gpt2",
        "gemma2",
        "mistral",
        "mixtral",
    }


@pytest.mark.parametrize("exporter", [name for name in EXPORTERS if name.startswith(("genai", "optimum"))])
def test_an_exporter_without_its_environment_says_how_to_get_it(exporter, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LLMTRACE_TEST_ENVIRONMENTS", str(tmp_path / "none"))
    with pytest.raises(NotInstalledError, match=re.escape(str(tmp_path / "none"))) as refused:
        export(exporter, "llama", tmp_path)
    assert "--install" in str(refused.value)
    assert main([exporter, "llama", str(tmp_path)]) == 0
    assert "skipped: " in capsys.readouterr().out
    assert not any(tmp_path.iterdir())


def test_a_name_that_there_is_not_is_refused(directory):
    for exporter, architecture in (("torchscript", "lama"), ("torch", "llama"), ("torchscript+more", "llama")):
        with pytest.raises(KeyError):
            export(exporter, architecture, directory)
