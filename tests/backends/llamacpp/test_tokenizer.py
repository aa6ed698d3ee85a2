"""Texts become tokens whose bytes are the text's, or an error that says which character is lost; chats become the tokens that
transformers has. The oracles are the bytes themselves, and transformers with the same file.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp", reason="brings the library")
pytest.importorskip("gguf")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmtrace.chat import chat
from llmtrace.errors import ChatTemplateError, PromptError
from llmtrace.spans import spans
from llmtrace_llamacpp.alphabet import spelled
from llmtrace_llamacpp.native import NativeModel
from llmtrace_llamacpp.tokenizer import LlamaCppTokenizer
from tests.backends.llamacpp.vocabularies import BYTES, SPECIAL, vocabulary

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}" + " " * 300
TALKS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "é 🙂\n\n  x"},
        {"role": "assistant", "content": "<|im_end|>"},
        {"role": "user", "content": " "},
    ],
]


def open_tokenizer(path: Path):
    model = NativeModel(path)
    return LlamaCppTokenizer(model), model


@pytest.fixture(scope="module")
def pieced(tmp_path_factory):
    """A SentencePiece vocabulary with every byte, and a chat template."""
    tokens = [*SPECIAL, *BYTES, "\u2581", "a", "b", "ab", "é", "\u2581a"]
    tokenizer, model = open_tokenizer(
        vocabulary(tmp_path_factory.mktemp("v") / "pieced.gguf", "llama", tokens, TEMPLATE)
    )
    yield tokenizer
    model.close()


def bytewise(tmp_path, without: bytes):
    tokens = [*SPECIAL, *(spelled(byte) for byte in range(256) if byte not in without), "ab"]
    return open_tokenizer(vocabulary(tmp_path / "bytewise.gguf", "gpt2", tokens))


@pytest.fixture(scope="module")
def real(smollm2):
    tokenizer, model = open_tokenizer(smollm2)
    yield tokenizer
    model.close()


def joined(tokenizer, ids) -> bytes:
    tokens = map(tokenizer.token, ids)
    return b"".join(token.text.encode() if token.bytes is None else token.bytes for token in tokens)


def covered(tokenizer, text, ids) -> bytes:
    return b"".join(text.encode()[a:b] for a, b in spans([tokenizer.token(id) for id in ids], text))


# -- no byte is lost


@EXAMPLES
@given(TEXTS)
def test_pieces_of_a_sentencepiece_vocabulary_are_the_text_behind_one_blank(pieced, text):
    ids = pieced.encode(text, special=False)
    assert joined(pieced, ids) == b" " * bool(text) + text.encode()
    assert covered(pieced, text, ids) == text.encode()
    begun = pieced.encode(text)
    assert begun == [1, *ids] and covered(pieced, text, begun) == text.encode()


@pytest.mark.slow
@EXAMPLES
@given(TEXTS)
def test_a_real_vocabulary_spells_a_text_or_says_what_it_cannot(real, text):
    raw = real._model.tokenize(text, True, True)
    if joined(real, raw) == text.encode():
        ids = real.encode(text)
        assert ids == raw and covered(real, text, ids) == text.encode()
    else:
        lost = [character for character in text if any(real._model.lacks(byte) for byte in character.encode())]
        with pytest.raises(PromptError, match="|".join(re.escape(repr(character)) for character in lost)):
            real.encode(text)


@EXAMPLES
@given(st.text("ab \t\né", max_size=12))
def test_a_byte_level_vocabulary_without_some_bytes_loses_none_of_them(tmp_path, text):
    tokenizer, model = bytewise(tmp_path, b"\t\xa9")
    with model:
        if lost := [place for place, character in enumerate(text) if character in "\té"]:
            with pytest.raises(PromptError, match=f"character ({'|'.join(map(str, lost))})[ ,]"):
                tokenizer.encode(text)
        else:
            assert joined(tokenizer, tokenizer.encode(text)) == text.encode()


def test_the_lost_character_is_named_with_its_place(tmp_path):
    tokenizer, model = bytewise(tmp_path, b"z\n")
    with model:
        assert len(model.tokenize("abzab", False, True)) == 2, "llama.cpp itself says nothing"
        with pytest.raises(PromptError, match=r"bytewise\.gguf cannot spell this prompt.*character 3, 'z'.*token ids"):
            tokenizer.encode("ab z")
        with pytest.raises(
            PromptError, match=r"cannot spell '\\n', at character 2 of the prompt.*leaves it out: give token ids"
        ):
            tokenizer.encode("ab\nab")
        with pytest.raises(PromptError, match="character 0, 'z'"):
            tokenizer.encode("z")


def test_where_there_is_no_blank_blanks_part_words(tmp_path):
    tokenizer, model = bytewise(tmp_path, b" \n")
    with model:
        ids = tokenizer.encode("ab a\nb")
        assert [tokenizer.token(id).text for id in ids] == ["ab", "a", "b"]


# -- chats


@pytest.mark.slow
@pytest.mark.parametrize("messages", TALKS)
def test_a_chat_is_the_tokens_that_transformers_has(real, smollm2, messages):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    found = chat(real, messages)
    assert found.text == theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert list(found.tokens) == theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert [real.token(id).text for id in found.tokens].count("<|im_start|>") == found.text.count("<|im_start|>") > 1


def test_a_template_that_begins_a_text_begins_it_once(pieced):
    found = chat(pieced, "ab")
    assert found.text == "<s>[user] ab</s>" + " " * 300
    assert found.tokens[0] == 1 and found.tokens.count(1) == 1 and found.tokens.count(2) == 1
    assert pieced.encode(found.text)[:2] == [1, 1], "encoded as any text, it would begin twice"
    assert joined(pieced, found.tokens).replace(b" ", b"") == found.text.replace(" ", "").encode()


def test_the_template_is_the_files_with_what_begins_and_ends_a_text(pieced):
    assert pieced.chat_template.text == TEMPLATE and pieced.chat_template.file.endswith("pieced.gguf")
    assert pieced.chat_template.marks == {"bos_token": "<s>", "eos_token": "</s>"}


def test_a_file_without_one_says_so(tmp_path):
    tokenizer, model = bytewise(tmp_path, b"")
    with model:
        assert tokenizer.chat_template is None
        assert model.metadata("general.architecture") == "llama" and model.metadata("no.such.key") is None
        with pytest.raises(ChatTemplateError, match="no chat template"):
            chat(tokenizer, "ab")


def test_a_template_is_not_run_until_a_chat_is_asked_for(tmp_path):
    path = vocabulary(tmp_path / "hostile.gguf", "llama", [*SPECIAL, *BYTES, "\u2581"], "{{ ().__class__.__mro__ }}")
    tokenizer, model = open_tokenizer(path)
    with model:
        assert tokenizer.encode("ab")
        with pytest.raises(ChatTemplateError, match=r"hostile\.gguf does what no template may"):
            chat(tokenizer, "ab")
