"""What cannot be opened says what, which, why and what to do; what can is described."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import llmtrace
from llmtrace.errors import ModelOpenError, OptionError, UnsupportedModelError
from llmtrace_torch.plugin import TorchBackend

TOKENS = [5, 17, 3, 88, 41]


@pytest.fixture
def copy(tiny, tmp_path) -> Path:
    """A tiny Llama that may be spoilt."""
    return Path(shutil.copytree(tiny("llama"), tmp_path / "model"))


def opening(path, **options):
    return llmtrace.open(path, backend="torch", options=options)


def edit(directory: Path, **keys):
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | keys))


def test_a_truncated_file_is_refused(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(ModelOpenError, match=r"model\.safetensors .*truncated"):
        opening(copy)


def test_a_config_without_weights_is_refused(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelOpenError, match=r"no weights: it lacks model\.safetensors, or"):
        opening(copy)


def test_a_pickle_is_refused_with_the_reason_and_the_fix(copy):
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(ModelOpenError, match=r"pickles can run code.*save_pretrained"):
        opening(copy)


def test_a_checkpoint_that_brings_code_is_refused_and_nothing_of_it_runs(copy):
    (copy / "evil.py").write_text("raise SystemExit('ran')")
    edit(copy, auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"})
    with pytest.raises(ModelOpenError, match="trust_remote_code=true"):
        opening(copy)


def test_a_missing_tensor_is_never_filled_in_at_random(copy):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelOpenError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        opening(copy)


def test_what_transformers_reports_as_missing_is_refused_too(copy, monkeypatch):
    """The table of names and transformers could disagree: then its own report counts."""
    import transformers

    real = transformers.AutoModelForCausalLM.from_pretrained

    def reporting(*args, **kwargs):
        model, report = real(*args, **kwargs)
        return model, {**report, "missing_keys": {"model.layers.0.new_thing.weight"}}

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", reporting)
    with pytest.raises(ModelOpenError, match=r"new_thing.*random numbers"):
        opening(copy)


def test_an_unknown_family_is_named_with_near_ones(copy):
    edit(copy, model_type="lama")
    with pytest.raises(UnsupportedModelError, match="llama"):
        opening(copy)


def test_a_name_that_is_nowhere_says_that_the_hub_was_not_reached():
    with pytest.raises(ModelOpenError, match=r"no file or directory 'llmtrace-tests/no-such-model'.*hub"):
        opening("llmtrace-tests/no-such-model")


def test_options_that_do_not_exist_here_are_refused(tiny):
    with pytest.raises(OptionError, match="dtype"):
        opening(tiny("llama"), dtype="float8")
    with pytest.raises(OptionError, match="no sdpa attention for the model"):
        opening(tiny("gemma2"), attention="sdpa")
    if not torch.cuda.is_available():
        with pytest.raises(OptionError, match=r"'cuda'.*cpu always works"):
            opening(tiny("llama"), device="cuda")


def test_weights_with_nan_open_and_are_said(copy):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = np.nan
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with opening(copy) as model:
        assert "model.layers.1.mlp.up_proj.weight holds NaN or infinite values" in model.info.notes
        assert next(e.site for e in model.trace(TOKENS).verify() if e.status == "violated") == "blocks.1.mlp.pre_linear"


def test_what_was_opened_is_described(tiny):
    with opening(tiny("llama"), threads=1) as model:
        info = model.info
    assert (info.backend, info.runtime, info.device, info.weights) == ("torch", "PyTorch", "cpu", "float32")
    assert info.settings["attention"] == "sdpa" and info.settings["threads"] == "1" and info.capture_tolerance == 0.0
    assert set(info.versions) == {"llmtrace-torch", "torch", "transformers"} and len(info.fingerprint) == 64
    assert any("no tokenizer" in note for note in info.notes)


def test_loading_is_quiet_and_leaves_transformers_as_it_was(tiny, capfd):
    from transformers.utils import logging

    logging.set_verbosity_info()
    logging.enable_progress_bar()
    try:
        opening(tiny("llama")).close()
        assert logging.get_verbosity() == logging.INFO and logging.is_progress_bar_enabled()
        assert capfd.readouterr() == ("", "")
    finally:
        logging.set_verbosity_warning()


def test_probe_tells_directories_files_and_names_apart_without_opening_them(tiny, tmp_path):
    probe = TorchBackend.probe
    assert probe(str(tiny("llama")), tiny("llama")) == "native"
    assert probe(str(tmp_path), tmp_path) is None
    (tmp_path / "a.gguf").write_bytes(b"GGUF....")
    (tmp_path / "b.gguf").write_bytes(b"nothing")
    assert probe("a.gguf", tmp_path / "a.gguf") == "converting" and probe("b.gguf", tmp_path / "b.gguf") is None
    assert probe("org/name-1.5", None) == "native" and probe("gpt2", None) == "native"
    assert probe("a/b/c", None) is None and probe("../x", None) is None and probe("model.onnx", None) is None


def test_neither_the_plugin_nor_a_probe_imports_the_runtime(tiny):
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from llmtrace_torch.plugin import TorchBackend as B, llmtrace_backends; "
        f"B.probe('x', Path({str(tiny('llama'))!r})); B.preset('exact'); llmtrace_backends(); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_infinite_weights_are_said_and_large_ones_are_not(copy):
    """A sum of large weights overflows, and none of them is infinite."""
    from safetensors.numpy import load_file, save_file

    for value, said in ((3e38, False), (np.inf, True)):
        tensors = load_file(copy / "model.safetensors")
        tensors["model.layers.1.mlp.up_proj.weight"][:2, :4] = value
        save_file(tensors, copy / "model.safetensors", {"format": "pt"})
        with llmtrace.open(copy, backend="torch", check=False) as model:
            assert any("NaN or infinite" in note for note in model.info.notes) == said


def test_a_model_is_read_in_four_passes_and_opened_in_seven(tiny, monkeypatch):
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    real, passes = LlamaForCausalLM.forward, []
    monkeypatch.setattr(
        LlamaForCausalLM,
        "forward",
        lambda self, ids, **named: passes.append(tuple(ids.shape)) or real(self, ids, **named),
    )
    read = [(1, 12), (1, 20), (1, 12), (1, 12)]
    for check, expected in ((False, read), (True, [*read, (1, 17), (1, 17), (2, 12)])):
        passes.clear()
        llmtrace.open(tiny("llama"), backend="torch", check=check).close()
        assert passes == expected
