"""The reference backend is a plugin like any other: found, chosen last, and asked nothing that reads a model."""

from __future__ import annotations

import subprocess
import sys

import pytest

import llmtrace
from llmtrace.data import embedded
from llmtrace.errors import OptionError
from llmtrace.plugins import plugins
from llmtrace.reference.plugin import ReferenceBackend


def test_it_is_found_through_its_entry_point():
    entry = plugins().backends["reference"]
    assert (entry.status, entry.distribution, entry.backend) == ("ok", "llmtrace-core", ReferenceBackend)


@pytest.mark.parametrize(
    ("files", "fit"),
    [
        (["config.json", "model.safetensors"], "reference"),
        (["config.json", "model.safetensors.index.json"], "reference"),
        (["config.json", "pytorch_model.bin"], "reference"),
        (["config.json", "model.onnx"], None),
        (["model.safetensors"], None),
        ([], None),
    ],
)
def test_it_takes_checkpoint_directories_as_a_last_resort(files, fit, tmp_path):
    for name in files:
        (tmp_path / name).touch()
    assert ReferenceBackend.probe(str(tmp_path), tmp_path) == fit


def test_it_takes_embedded_models_as_its_own_and_no_other_name():
    assert ReferenceBackend.probe("builtin:induction", None) == "native"
    assert ReferenceBackend.probe("someone/a-model", None) is None
    file = embedded("induction") / "model.safetensors"
    assert ReferenceBackend.probe(str(file), file) is None


def test_its_prefix_names_it():
    with llmtrace.open(f"reference:{embedded('induction')}") as model:
        assert (model.info.backend, model.chosen) == ("reference", "named")
    with llmtrace.open("reference:builtin:induction") as model:
        assert model.info.source == "builtin:induction"


def test_a_type_that_it_does_not_compute_in_is_refused():
    with pytest.raises(OptionError, match=r"dtype.*float64.*float32.*float16"):
        llmtrace.open("builtin:induction", options={"dtype": "float16"})
    with pytest.raises(OptionError, match=r"no option 'dtyp'; it has dtype\. Did you mean dtype\?"):
        llmtrace.open("builtin:induction", options={"dtyp": "float32"})


def test_the_plugin_reads_no_checkpoint_and_imports_no_library():
    code = "import llmtrace.reference.plugin, sys; print([m for m in sys.modules if m.split('.')[0] in UNWANTED or m in UNWANTED])"
    unwanted = {
        "tokenizers",
        "torch",
        "transformers",
        "llmtrace.families",
        "llmtrace.reference.session",
        "llmtrace.tokenizer",
    }
    done = subprocess.run(
        [sys.executable, "-c", code.replace("UNWANTED", repr(unwanted))], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
