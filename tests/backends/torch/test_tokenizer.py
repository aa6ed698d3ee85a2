"""Tokens have their exact text: bytes where they are not valid UTF-8 alone, a space where sentencepiece writes `▁`."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from llmtrace.tokens import Tokenizer as Protocol
from llmtrace_torch.tokenizer import LETTERS, open_tokenizer

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
