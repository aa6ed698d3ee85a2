"""Where a directory's chat template is, and which special tokens it may name."""

from __future__ import annotations

import json

import pytest

from llmtrace.chat import ChatTemplate
from llmtrace.errors import ModelOpenError
from llmtrace.testing import handmade
from llmtrace.tokenizer import open_tokenizer
from llmtrace.tokenizer.template import chat_template


def config(directory, **entries):
    (directory / "tokenizer_config.json").write_text(json.dumps(entries), encoding="utf-8")
    return directory


def test_a_directory_without_one_has_none(tmp_path):
    assert chat_template(tmp_path) is None
    assert chat_template(config(tmp_path, bos_token="<s>")) is None


def test_the_config_has_the_template_and_the_marks(tmp_path):
    config(tmp_path, chat_template="{{ x }}", bos_token="<s>", eos_token={"content": "</s>"}, pad_token=None, other=1)
    assert chat_template(tmp_path) == ChatTemplate(
        "{{ x }}", str(tmp_path / "tokenizer_config.json"), {"bos_token": "<s>", "eos_token": "</s>"}
    )


def test_a_file_of_its_own_goes_before(tmp_path):
    config(tmp_path, chat_template="{{ x }}", bos_token="<s>")
    (tmp_path / "chat_template.jinja").write_text("{{ ü }}", encoding="utf-8")
    assert chat_template(tmp_path) == ChatTemplate(
        "{{ ü }}", str(tmp_path / "chat_template.jinja"), {"bos_token": "<s>"}
    )


def test_of_several_the_default_one_is_meant(tmp_path):
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    assert chat_template(config(tmp_path, chat_template=named)).text == "d"
    assert chat_template(config(tmp_path, chat_template=named[:1])) is None


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_config_that_is_none_is_named(tmp_path, content):
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(ModelOpenError, match=r"tokenizer_config\.json"):
        chat_template(tmp_path)


def test_a_template_that_is_no_text_is_named(tmp_path):
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ModelOpenError, match=r"chat_template\.jinja cannot be read"):
        chat_template(tmp_path)


def test_both_readers_bring_it(tmp_path):
    config(tmp_path, chat_template="{{ x }}")
    for data in (handmade.tokenizer(), handmade.tokenizer() | {"normalizer": {"type": "Lowercase"}}):
        (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
        tokenizer, _ = open_tokenizer(tmp_path)
        assert tokenizer is not None and tokenizer.chat_template.text == "{{ x }}"
