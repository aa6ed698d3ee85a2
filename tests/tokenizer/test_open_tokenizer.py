"""What a directory's tokenizer is, or why it has none."""

from __future__ import annotations

import json
import sys

import pytest

from llmtrace.data import embedded
from llmtrace.errors import ModelOpenError
from llmtrace.testing import handmade
from llmtrace.tokenizer import open_tokenizer

OTHER = handmade.tokenizer() | {"normalizer": {"type": "Lowercase"}}
"""Not of the kind that the core reads by itself."""


def written(directory, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (directory / "tokenizer.json").write_text(text, encoding="utf-8")
    return directory


def test_a_directory_without_a_tokenizer_says_so(tmp_path):
    assert open_tokenizer(tmp_path) == (None, "There is no tokenizer.json: prompts are token ids.")


def test_a_sentencepiece_model_alone_is_named(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a")
    assert (
        open_tokenizer(tmp_path)[1]
        == "There is no tokenizer.json (tokenizer.model alone is not read): prompts are token ids."
    )


def test_without_the_library_the_note_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    monkeypatch.delitem(sys.modules, "llmtrace.tokenizer.hf", raising=False)
    monkeypatch.delattr(sys.modules["llmtrace.tokenizer"], "hf", raising=False)
    tokenizer, note = open_tokenizer(written(tmp_path, OTHER))
    assert tokenizer is None
    assert "pip install tokenizers" in note


def test_the_embedded_model_needs_no_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    tokenizer, note = open_tokenizer(embedded("induction"))
    assert (tokenizer.encode("c a"), note) == ([0, 3, 1], "")


BROKEN = {
    "not JSON": ('{"model": ', "cannot be read as JSON"),
    "no object": ("[1, 2]", "has no object 'model'"),
    "no model": ({"version": "1.0"}, "has no object 'model'"),
    "too deep": ("[" * 200_000, "cannot be read as JSON"),
    "no vocabulary": (
        handmade.tokenizer() | {"model": {"type": "WordLevel"}},
        "is not a word-level tokenizer: KeyError: 'vocab'",
    ),
    "a vocabulary of texts": (
        handmade.tokenizer() | {"model": {"type": "WordLevel", "vocab": {"a": "b"}}},
        "not a word-level",
    ),
    "a template of nothing": (
        handmade.tokenizer() | {"post_processor": {"type": "TemplateProcessing"}},
        "not a word-level",
    ),
    "added tokens without an id": (handmade.tokenizer() | {"added_tokens": [{"content": "x"}]}, "not a word-level"),
    "a model that the library does not know": (OTHER | {"model": {"type": "Telepathy"}}, "is refused by tokenizers"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_malformed_file_is_named_with_what_is_wrong(case, tmp_path):
    content, message = BROKEN[case]
    with pytest.raises(ModelOpenError, match=message) as caught:
        open_tokenizer(written(tmp_path, content))
    assert str(tmp_path / "tokenizer.json") in str(caught.value)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelOpenError, match="cannot be read as JSON"):
        open_tokenizer(tmp_path)
