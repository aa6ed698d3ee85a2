"""What opening says of the model, and what it refuses."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import llmtrace
from llmtrace.data import embedded
from llmtrace.errors import ModelOpenError, UnsupportedModelError
from llmtrace.protocol import SupportsMany, SupportsReplay, SupportsWeights


@pytest.fixture
def directory(tmp_path):
    return shutil.copytree(embedded("induction"), tmp_path / "model")


def opened(directory, **options):
    return llmtrace.open(directory, backend="reference", options=options)


def test_the_record_says_what_took_part(directory):
    with opened(directory, dtype="float32") as model:
        info = model.info
    assert (info.source, info.backend, info.runtime, info.device) == (str(directory), "reference", "NumPy", "cpu")
    assert info.versions == {"llmtrace-core": llmtrace.__version__, "numpy": np.__version__}
    assert (info.weights, info.settings, info.options) == ("float32", {"dtype": "float32"}, {"dtype": "float32"})
    assert info.notes == ()
    assert info.capture_tolerance == 0


@pytest.mark.parametrize("preset", ["exact", "shipped"])
def test_the_preset_is_recorded_in_the_model_and_its_traces(preset, directory):
    with llmtrace.open(directory, backend="reference", preset=preset) as model:
        assert model.info.preset == model.trace("c a", capture="logits").model.preset == preset


def test_it_can_read_weights_and_take_signals_as_given_but_runs_one_prompt_at_a_time():
    with llmtrace.open("builtin:induction") as model:
        assert isinstance(model.session, SupportsWeights)
        assert isinstance(model.session, SupportsReplay)
        assert not isinstance(model.session, SupportsMany)
        assert set(model.session.stored) == set(model.weights)
        assert set(model.session.stored.values()) == {"float32"}
        assert (
            set(model.session.replayable)
            == set(model.session.offers)
            == {site.name for site in llmtrace.sites(model.spec)}
        )
        assert not model.session.gaps


def test_the_fingerprint_changes_with_the_weights(directory):
    before = opened(directory).info.fingerprint
    tensors = load_file(directory / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 2
    save_file(tensors, directory / "model.safetensors")
    assert opened(directory).info.fingerprint != before


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named_in_the_notes_and_nothing_warns(value, directory):
    tensors = load_file(directory / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][3, 4] = value
    save_file(tensors, directory / "model.safetensors")
    with opened(directory) as model:
        assert model.info.notes == ("The weights hold NaN or infinity in blocks.1.mlp.W_out.",)
        trace = model.trace("c a", capture=["blocks.0.resid_post", "blocks.1.mlp.out"])
    assert np.isfinite(trace["blocks.0.resid_post"].array).all()
    assert not np.isfinite(trace["blocks.1.mlp.out"].array).all()


def test_a_missing_tokenizer_is_a_note_and_prompts_are_ids(directory):
    (directory / "tokenizer.json").unlink()
    with opened(directory) as model:
        assert model.info.notes == ("There is no tokenizer.json: prompts are token ids.",)
        with pytest.raises(llmtrace.errors.PromptError, match="no tokenizer: give token ids"):
            model.trace("c a")
        assert model.trace([0, 3, 1], capture="logits").tokens[1].text == ""


def test_pickles_are_refused_by_name_and_nothing_in_them_runs(directory):
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(ModelOpenError, match=r"pytorch_model\.bin .*pickles can run code"):
        opened(directory)


def test_a_truncated_file_is_refused_by_name(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelOpenError, match=r"model\.safetensors .*truncated"):
        opened(directory)


def test_a_file_is_no_directory(directory):
    with pytest.raises(ModelOpenError, match=r"opens a directory with config\.json and safetensors"):
        opened(directory / "model.safetensors")


def test_an_architecture_that_the_equations_do_not_express_is_refused_by_name(directory):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "mamba"}))
    with pytest.raises(UnsupportedModelError, match="mamba models have state-space layers"):
        opened(directory)
