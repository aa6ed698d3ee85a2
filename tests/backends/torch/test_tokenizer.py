"""Tokens have their exact text: bytes where they are not valid UTF-8 alone, a space where sentencepiece writes `▁`."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from llmtrace.errors import PromptError
from llmtrace.tokenizer import open_tokenizer as open_by_core
from llmtrace.tokenizer.spelling import BYTE_OF as LETTERS
from llmtrace.tokens import FindsTokens, one_token
from llmtrace.tokens import Tokenizer as Protocol
from llmtrace.trace import Token
from llmtrace_torch.tokenizer import FastTokenizer, TransformersTokenizer, open_tokenizer

TEXT = "naïve café 日本語 🙂 two  spaces\n\tand <eos> a tail"


def saved(directory, tokenizer):
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(directory)
    opened, note = open_tokenizer(directory)
    assert note == "" and isinstance(opened, Protocol)
    return opened


@pytest.fixture
def bytelevel(tmp_path):
    """Every byte a token, a few merges, one special token."""
    vocab = {letter: place for place, letter in enumerate(LETTERS)} | {"an": 256, "Ġan": 257}
    inner = Tokenizer(models.BPE(vocab, [("a", "n"), ("Ġ", "an")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken("<eos>", special=True)])
    return saved(tmp_path, inner)


@pytest.fixture
def sentencepiece(tmp_path):
    """Pieces with `▁`, bytes for the rest."""
    pieces = [*(f"<0x{byte:02X}>" for byte in range(256)), "▁", "t", "w", "o", "a", "n", "d", "▁two", "▁and"]
    merges = [("▁", "t"), ("▁t", "w"), ("▁tw", "o")]
    vocab = {piece: place for place, piece in enumerate([*pieces, "▁t", "▁tw"])}
    inner = Tokenizer(models.BPE(vocab, merges, byte_fallback=True, unk_token=None))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return saved(tmp_path, inner)


@pytest.mark.parametrize("kind", ["bytelevel", "sentencepiece"])
def test_the_bytes_of_the_tokens_together_are_the_text(kind, request):
    tokenizer = request.getfixturevalue(kind)
    tokens = [tokenizer.token(id) for id in tokenizer.encode(TEXT)]
    assert b"".join(token.text.encode() if token.bytes is None else token.bytes for token in tokens) == TEXT.encode()


def test_a_token_that_is_not_valid_alone_carries_its_bytes(bytelevel):
    ids = bytelevel.encode("é")
    assert [bytelevel.token(id).bytes for id in ids] == [b"\xc3", b"\xa9"]
    assert bytelevel.token(ids[0]).text == "\ufffd"
    whole = bytelevel.token(257)
    assert (whole.text, whole.bytes) == (" an", None)


def test_sentencepiece_spaces_and_bytes_are_plain(sentencepiece):
    assert [sentencepiece.token(id).text for id in sentencepiece.encode("a two")] == ["a", " two"]
    assert sentencepiece.token(0xE6).bytes == b"\xe6" and sentencepiece.token(0x41).text == "A"


def test_special_tokens_keep_their_own_text_and_unknown_ids_have_none(bytelevel):
    assert bytelevel.token(258).text == "<eos>" and bytelevel.encode("<eos>") == [258]
    assert bytelevel.token(5000).text == ""


def test_special_tokens_are_added_only_if_they_are_wanted(tmp_path):
    from tokenizers.processors import TemplateProcessing

    inner = Tokenizer(models.BPE({letter: place for place, letter in enumerate(LETTERS)}, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    inner.add_special_tokens([AddedToken("<bos>", special=True)])
    inner.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 256)])
    tokenizer = saved(tmp_path, inner)
    assert tokenizer.encode("a") == [256, LETTERS["a"] and tokenizer.encode("a", special=False)[0]]
    assert len(tokenizer.encode("a", special=False)) == 1


def test_a_directory_without_one_or_with_a_broken_one_is_said_and_not_fatal(tmp_path):
    assert open_tokenizer(tmp_path) == (None, "the directory has no tokenizer: prompts are token ids")
    (tmp_path / "tokenizer.json").write_text("{broken")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    tokenizer, note = open_tokenizer(tmp_path)
    assert tokenizer is None and "cannot be opened" in note


def metaspace():
    """Encoding puts a space in front, so that it never gives `Paris`."""
    vocab = {"<unk>": 0, "▁Paris": 1, "Paris": 2, "▁": 3, "</s>": 4}
    inner = Tokenizer(
        models.Unigram([(piece, -float(id)) for piece, id in vocab.items()], unk_id=0, byte_fallback=False)
    )
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    inner.add_special_tokens([AddedToken("</s>", special=True)])
    return inner


def test_a_target_that_encoding_never_gives_is_found_as_the_core_finds_it(tmp_path):
    ours = saved(tmp_path, metaspace())
    core, _ = open_by_core(tmp_path)
    assert isinstance(ours, FindsTokens) and isinstance(core, FindsTokens)
    for text, id in (("Paris", 2), (" Paris", 1), (" ", 3), ("</s>", 4)):
        assert one_token(text, ours, 5) == one_token(text, core, 5) == Token(id, text)
    for tokenizer in (ours, core):
        with pytest.raises(PromptError, match="is not one token"):
            one_token("London", tokenizer, 5)


@pytest.mark.parametrize("kind", ["bytelevel", "sentencepiece", "metaspace"])
def test_core_and_transformers_give_the_same_ids_and_texts(kind, request, tmp_path):
    if kind == "metaspace":
        ours, directory = saved(tmp_path, metaspace()), tmp_path
    else:
        ours, directory = request.getfixturevalue(kind), tmp_path
    core, note = open_by_core(directory)
    alone = transformers.AutoTokenizer.from_pretrained(directory)
    assert note == ""
    for text in (TEXT, "Paris Paris", "</s> a <eos>", ""):
        for special in (True, False):
            expected = alone(text, add_special_tokens=special)["input_ids"]
            assert ours.encode(text, special=special) == expected == core.encode(text, special=special)
    assert [ours.token(id) for id in range(len(alone) + 2)] == [core.token(id) for id in range(len(alone) + 2)]


def test_what_transformers_adds_to_the_file_is_added(tmp_path):
    """`add_bos_token` stands in `tokenizer_config.json`, which only transformers reads."""
    import json

    from transformers import LlamaTokenizerFast

    pieces = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "a": 4, "▁a": 5}
    made = LlamaTokenizerFast(vocab=pieces, merges=[("▁", "a")], add_bos_token=True)
    made.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    ours, note = open_tokenizer(tmp_path)
    alone = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert note == "" and type(ours) is FastTokenizer
    assert ours.encode("a a") == alone("a a")["input_ids"] and ours.encode("a a")[0] == 1
    assert [ours.token(id).text for id in ours.encode("a", special=False)] == [" a"]


def test_a_tokenizer_of_python_alone_takes_texts_too():
    """Those do not run on the library `tokenizers`."""
    from transformers import CanineTokenizer

    ours = TransformersTokenizer(CanineTokenizer())
    assert (
        ours.encode("ab", special=False) == [97, 98]
        and isinstance(ours, Protocol)
        and not isinstance(ours, FindsTokens)
    )
    assert ours.token(97) == Token(97, "a")
    assert one_token("a", ours, 1000) == Token(97, "a")


def test_code_beside_a_tokenizer_is_neither_run_nor_asked_about(tmp_path, monkeypatch):
    import json

    saved(tmp_path, metaspace())
    for name in ("tokenizer_config.json", "config.json"):
        (tmp_path / name).write_text(json.dumps({
            "model_type": "evil", "tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None], "AutoConfig": "evil.Evil"},
        }))  # fmt: skip
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nclass Evil: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))
    open_tokenizer(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_a_byte_that_the_vocabulary_lacks_is_named_and_not_left_out(tmp_path):
    vocab = {letter: place for place, letter in enumerate(letter for letter in LETTERS if letter not in "zĊ")}
    inner = Tokenizer(models.BPE(vocab, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    assert inner.encode("az").ids == inner.encode("a").ids, "the library itself says nothing"
    tokenizer = saved(tmp_path, inner)
    for opened in (tokenizer, open_by_core(tmp_path)[0]):
        assert len(opened.encode("a b")) == 3
        with pytest.raises(PromptError, match=f"vocabulary of {tmp_path}.* character 1, 'z'"):
            opened.encode("az")
        with pytest.raises(PromptError, match=r"cannot spell '\\n', at character 1"):
            opened.encode("a\nb")


def test_the_chat_template_is_the_directorys_the_same_by_both_readers(tmp_path, bytelevel):
    assert bytelevel.chat_template is None
    inner = bytelevel._inner
    for template in ("{{ eos_token }}{{ messages[0].content }}", {"default": "{{ 1 }}", "tool_use": "{{ 2 }}"}):
        inner.chat_template, inner.eos_token = template, "<eos>"
        inner.save_pretrained(tmp_path)
        found, core = open_tokenizer(tmp_path)[0].chat_template, open_by_core(tmp_path)[0].chat_template
        assert found.text == core.text == (template if isinstance(template, str) else "{{ 1 }}")
        assert found.marks["eos_token"] == core.marks["eos_token"] == "<eos>"
        assert str(tmp_path) in found.file and str(tmp_path) in core.file
    with pytest.raises(AttributeError):
        bytelevel.chat_template = None


def test_a_chat_is_what_transformers_makes_of_it(tmp_path, bytelevel):
    pytest.importorskip("jinja2")
    from llmtrace.chat import chat

    inner = bytelevel._inner
    inner.chat_template, inner.eos_token = "{{ eos_token }}{% for m in messages %}{{ m.content }}{% endfor %}", "<eos>"
    inner.save_pretrained(tmp_path)
    messages = [{"role": "user", "content": "an é"}]
    theirs = inner.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    for tokenizer in (open_tokenizer(tmp_path)[0], open_by_core(tmp_path)[0]):
        assert list(chat(tokenizer, messages).tokens) == theirs
