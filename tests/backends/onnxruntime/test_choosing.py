"""Which file of a directory is meant."""

from __future__ import annotations

import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("llmtrace_onnxruntime")

from llmtrace.errors import ModelOpenError, OptionError
from llmtrace_onnxruntime.options import OnnxRuntimeOptions
from llmtrace_onnxruntime.proto import load
from tests.backends.onnxruntime import graphs

# -- which file


def test_a_directory_of_one_file_means_it(single):
    assert load(single.parent).path == single and not load(single.parent).notes


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.onnx", "model_q4.onnx"], "model.onnx"),
        (["decoder_model.onnx", "decoder_model_merged.onnx", "decoder_with_past_model.onnx"], "decoder_model.onnx"),
        (["onnx/model.onnx", "onnx/model_fp16.onnx", "onnx/model_int8.onnx"], "onnx/model.onnx"),
    ],
)
def test_of_several_files_the_usual_name_is_meant_and_said(names, chosen, model, tmp_path):
    for name in names:
        graphs.save(model, tmp_path / name)
    loaded = load(tmp_path)
    assert loaded.path == tmp_path / chosen and chosen in loaded.notes[0] and names[1] in loaded.notes[0]


def test_a_file_elsewhere_that_the_config_of_genai_names_is_not_followed_and_that_is_said(single):
    (single.parent / "genai_config.json").write_text('{"model": {"decoder": {"filename": "../other/model.onnx"}}}')
    loaded = load(single.parent)
    assert loaded.path == single
    assert any("'../other/model.onnx', which is not in this directory" in note for note in loaded.notes)


def test_the_config_of_genai_names_its_file(model, tmp_path):
    for name in ("model.onnx", "mine.onnx"):
        graphs.save(model, tmp_path / name)
    (tmp_path / "genai_config.json").write_text('{"model": {"decoder": {"filename": "mine.onnx"}}}')
    assert load(tmp_path).path.name == "mine.onnx"


def test_several_files_of_unusual_names_are_listed_with_the_option_that_chooses(model, tmp_path):
    for name in ("a.onnx", "b.onnx"):
        graphs.save(model, tmp_path / name)
    with pytest.raises(ModelOpenError, match=r"a\.onnx, b\.onnx\. Choose one with the option file \(-o file=a\.onnx\)"):
        load(tmp_path)
    assert load(tmp_path, OnnxRuntimeOptions(file="b.onnx")).path.name == "b.onnx"
    graphs.save(model, tmp_path.parent / "outside.onnx")
    for wrong in ("c.onnx", "../outside.onnx", str(tmp_path.parent / "outside.onnx"), "."):
        with pytest.raises(OptionError, match=r"a\.onnx, b\.onnx"):
            load(tmp_path, OnnxRuntimeOptions(file=wrong))


def test_half_of_a_translator_is_refused(model, tmp_path):
    for name in ("encoder_model.onnx", "decoder_model.onnx"):
        graphs.save(model, tmp_path / name)
    with pytest.raises(ModelOpenError, match="encoder"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["genai_config.json", "config.json"])
@pytest.mark.parametrize("content", ["{", "[]", '"a"'])
def test_a_config_that_is_none_is_named(name, content, single):
    single.with_name(name).write_text(content)
    with pytest.raises(ModelOpenError, match=name):
        load(single)
