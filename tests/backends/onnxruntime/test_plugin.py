"""What is said of a source before it is opened."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("onnx")
pytest.importorskip("llmtrace_onnxruntime")

from llmtrace.plugins import plugins
from llmtrace_onnxruntime.options import LEVELS, PRESETS, OnnxRuntimeOptions
from llmtrace_onnxruntime.plugin import OnnxRuntimeBackend
from tests.backends.onnxruntime import graphs

probe = OnnxRuntimeBackend.probe


def fit(path):
    return probe(str(path), path)


@pytest.fixture
def model(tmp_path):
    return graphs.save(graphs.decoder(), tmp_path / "model.onnx")


def test_a_model_is_native_whatever_it_is_called(model):
    assert fit(model) == "native"
    assert fit(model.rename(model.with_name("blob"))) == "native"


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs", b"\x08"])
def test_a_name_alone_makes_no_model(content, tmp_path):
    (tmp_path / "model.onnx").write_bytes(content)
    assert fit(tmp_path / "model.onnx") is None


@pytest.mark.parametrize("content", [b"GGUF\3\0\0\0", b"PK\3\4"])
def test_another_format_is_another_backends_whatever_it_is_called(content, tmp_path):
    (tmp_path / "model.onnx").write_bytes(content)
    assert fit(tmp_path / "model.onnx") is None


def test_names_that_lead_to_no_file_are_not_ours(tmp_path):
    assert probe("org/name", None) is None
    assert fit(tmp_path) is None


@pytest.mark.parametrize("folder", ["", "onnx"])
def test_a_directory_is_native_unless_it_holds_a_checkpoint_too(folder, tmp_path):
    graphs.save(graphs.decoder(), tmp_path / folder / "model.onnx")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert fit(tmp_path) == "native"
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert fit(tmp_path) == "converting"


def test_of_a_directory_with_a_config_and_a_graph_alone_no_checkpoint_is_asked_for(model):
    torch = pytest.importorskip("llmtrace_torch.plugin").TorchBackend
    (model.parent / "config.json").write_text('{"model_type": "llama"}')
    assert torch.probe(str(model.parent), model.parent) == "converting" and fit(model.parent) == "native"
    (model.parent / "model.safetensors").write_bytes(b"")
    assert torch.probe(str(model.parent), model.parent) == "native" and fit(model.parent) == "converting"


def test_the_exact_preset_runs_the_graph_as_written_and_the_shipped_one_as_the_runtime_does():
    exact, shipped = OnnxRuntimeBackend.preset("exact"), OnnxRuntimeBackend.preset("shipped")
    assert (exact.optimization, exact.prepacking, exact.saturating, exact.deterministic) == ("off", False, False, True)
    assert shipped == OnnxRuntimeOptions() and shipped.optimization == "all" and set(PRESETS) == {"exact", "shipped"}


def test_the_levels_are_the_runtimes_own():
    runtime = pytest.importorskip("onnxruntime")
    assert all(hasattr(runtime.GraphOptimizationLevel, name) for name in LEVELS.values())


@pytest.mark.parametrize("wrong", [{"optimization": "most"}, {"threads": 0}, {"threads": 1 << 20}])
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        OnnxRuntimeOptions(**wrong)


def test_the_plugin_is_found_and_whole():
    assert "onnxruntime" in plugins().backends
    assert not [broken for broken in plugins().broken if "onnxruntime" in str(broken)]


def test_neither_the_plugin_nor_a_probe_imports_the_runtime(model):
    code = (
        "import sys; from pathlib import Path; from llmtrace_onnxruntime.plugin import OnnxRuntimeBackend as B; "
        f"p = Path({str(model)!r}); assert B.probe(str(p), p) == 'native'; B.preset('exact'); "
        "assert not {'onnx', 'onnxruntime', 'numpy', 'tokenizers'} & set(sys.modules) - {'numpy'}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
