"""The tokenizer beside a graph, or the one that is named."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("tokenizers")
pytest.importorskip("onnx")
pytest.importorskip("llmtrace_onnxruntime")

from llmtrace.errors import ModelOpenError, OptionError
from llmtrace_onnxruntime.tokenizer import open_tokenizer

VOCAB = {"<s>": 0, "a": 1, "b": 2, "Ġ": 3, "Ġa": 4, "Ã": 5}
BYTES = {
    "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
    "added_tokens": [
        {"id": 0, "content": "<s>", "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    ],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    "post_processor": {
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    },
    "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    "model": {"type": "BPE", "vocab": VOCAB, "merges": [["Ġ", "a"]], "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
              "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "tokenizer.json").write_text(json.dumps(BYTES), "utf-8")
    return tmp_path


@pytest.mark.parametrize("place", ["model.onnx", "onnx/model.onnx"])
def test_it_is_found_beside_the_file_and_beside_its_folder(place, folder):
    tokenizer, note = open_tokenizer(folder / place)
    assert not note
    assert tokenizer.encode("a a") == [0, 1, 4] and tokenizer.encode("a a", special=False) == [1, 4]
    assert tokenizer.token(4).text == " a"
    assert tokenizer.token(5).bytes == b"\xc3" and tokenizer.token(5).text == "\ufffd"
    assert tokenizer.find(" a") == 4


def test_without_one_a_note_says_what_to_do(tmp_path):
    tokenizer, note = open_tokenizer(tmp_path / "model.onnx")
    assert tokenizer is None and "no tokenizer.json" in note and "option tokenizer" in note


@pytest.mark.parametrize("named", ["", "tokenizer.json", "mine.json"])
def test_a_named_one_is_opened_whatever_it_is_called(named, folder, tmp_path):
    (folder / "mine.json").write_text(json.dumps(BYTES), "utf-8")
    tokenizer, note = open_tokenizer(tmp_path / "elsewhere" / "model.onnx", str(folder / named))
    assert not note and tokenizer.encode("b", special=False) == [2]


def test_a_name_that_leads_to_none_is_refused(tmp_path):
    for named in (tmp_path / "nothing.json", tmp_path):
        with pytest.raises(OptionError, match="option tokenizer names"):
            open_tokenizer(tmp_path / "model.onnx", str(named))


def test_a_file_that_is_none_is_refused_by_name(folder):
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelOpenError, match=r"tokenizer\.json cannot be read as JSON"):
        open_tokenizer(folder / "model.onnx")
    (folder / "other.json").write_text("{}")
    with pytest.raises(ModelOpenError, match=r"other\.json"):
        open_tokenizer(folder / "model.onnx", str(folder / "other.json"))
