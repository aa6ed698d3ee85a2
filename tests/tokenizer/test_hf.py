"""Exact token texts: put together again, they are the text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtrace.errors import PromptError
from llmtrace.tokenizer import open_tokenizer
from llmtrace.tokens import one_token
from llmtrace.trace import Token

tokenizers = pytest.importorskip("tokenizers")
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402

CORPUS = ["The capital of France is Paris.", " Paris, London; café — naïve 😀", "a\nb\tc  d 0 1 2"] * 3


def byte_level():
    """GPT-2's kind."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, special_tokens=["<|end|>"])
    )
    return made


def llama_2():
    """SentencePiece's BPE with byte fallback, as converted: a space is put in front, spaces are `▁`."""
    words = ["▁", "▁P", "▁Pa", "▁Par", "▁Pari", "▁Paris", *"Paris", "\n"]
    pieces = dict.fromkeys(["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words])
    merges = [("▁", "P"), ("▁P", "a"), ("▁Pa", "r"), ("▁Par", "i"), ("▁Pari", "s")]
    vocab = {piece: id for id, piece in enumerate(pieces) if piece != "\n"}
    made = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    made.add_special_tokens(["<s>"])
    return made


def unigram():
    """SentencePiece's other kind, through Metaspace."""
    made = tokenizers.Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    made.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=120, unk_token="<unk>", special_tokens=["<unk>"])
    )
    return made


def word_piece():
    made = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "play": 1, "##ing": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.WordPiece()
    return made


def opened(made, directory):
    made.save(str(directory / "tokenizer.json"))
    ours, note = open_tokenizer(directory)
    assert note == ""
    return ours


@pytest.fixture(scope="module")
def gpt(tmp_path_factory):
    made = byte_level()
    return opened(made, tmp_path_factory.mktemp("gpt")), made


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    made = llama_2()
    return opened(made, tmp_path_factory.mktemp("llama")), made


def joined(ours, ids):
    tokens = [ours.token(id) for id in ids]
    return b"".join(token.text.encode() if token.bytes is None else token.bytes for token in tokens)


@given(st.text())
def test_bytes_of_a_byte_level_text_come_back_exactly(gpt, text):
    ours, made = gpt
    ids = ours.encode(text)
    assert ids == made.encode(text).ids
    assert joined(ours, ids) == text.encode()


@given(st.text())
def test_bytes_of_a_sentencepiece_text_come_back_with_its_space(llama, text):
    ours, made = llama
    ids = ours.encode(text, special=False)
    assert ids == made.encode(text, add_special_tokens=False).ids
    expected = text.replace("▁", " ")  # the file itself does not tell them apart
    pieces = [made.id_to_token(id) for id in ids]
    if "<s>" not in text:
        assert joined(ours, ids) == (f" {expected}" if pieces else "").encode()


def test_special_tokens_are_added_only_where_asked(llama):
    ours, _ = llama
    assert ours.token(ours.encode(" Paris")[0]) == Token(1, "<s>")
    assert 1 not in ours.encode(" Paris", special=False)


def test_a_part_of_a_character_carries_its_bytes(gpt, llama):
    for ours, made in (gpt, llama):
        lone = made.token_to_id("ð") if ours is gpt[0] else made.token_to_id("<0xF0>")
        assert ours.token(lone) == Token(lone, "\ufffd", b"\xf0")


def test_a_byte_that_is_a_character_is_that_character(llama):
    ours, made = llama
    id = made.token_to_id("<0x0A>")
    assert ours.token(id) == Token(id, "\n")
    assert ours.find("\n") == id


def test_every_byte_level_token_decodes_as_the_library_decodes_it(gpt):
    ours, made = gpt
    for id in range(made.get_vocab_size()):
        assert ours.token(id).text == made.decode([id], skip_special_tokens=False)
    assert ours.token(made.get_vocab_size() + 5) == Token(made.get_vocab_size() + 5)


def test_a_target_is_found_by_its_exact_text_though_encoding_would_split_it(llama):
    """`encode(" Paris")` puts a second space in front; `one_token` finds the token that says " Paris"."""
    ours, made = llama
    assert len(ours.encode(" Paris", special=False)) == 2
    assert one_token(" Paris", ours, 400).id == made.token_to_id("▁Paris")
    assert one_token("P", ours, 400).id == made.token_to_id("P")
    with pytest.raises(PromptError, match="is not one token: the tokenizer reads it as ' Paris'"):
        one_token("Paris", ours, 400)


def test_a_byte_level_target_is_found_with_and_without_its_space(gpt):
    ours, _ = gpt
    for text in ("Paris", " Paris", "é", " "):
        id = ours.find(text)
        assert id is None or ours.token(id) == Token(id, text)
    assert ours.find("no such token") is None


def test_unigram_pieces_keep_their_spaces(tmp_path):
    made = unigram()
    ours = opened(made, tmp_path)
    ids = ours.encode("The capital of France")
    assert ids == made.encode("The capital of France").ids
    assert joined(ours, ids) == b" The capital of France"


def test_word_pieces_are_as_their_decoder_says(tmp_path):
    ours = opened(word_piece(), tmp_path)
    assert [ours.token(id).text for id in ours.encode("playing")] == ["play", "##ing"]


def test_truncation_that_a_file_asks_for_is_not_done(tmp_path):
    made = byte_level()
    made.enable_truncation(3)
    made.enable_padding(length=50)
    ours = opened(made, tmp_path)
    assert joined(ours, ours.encode("The capital of France")) == b"The capital of France"


def test_an_added_token_is_spelled_as_it_is(gpt, tmp_path):
    _, made = gpt
    copy = tokenizers.Tokenizer.from_str(made.to_str())
    copy.add_tokens(["Ġé", "two words"])
    ours = opened(copy, tmp_path)
    for text in ("Ġé", "two words", "<|end|>"):
        id = copy.token_to_id(text)
        assert ours.token(id) == Token(id, text)
        assert ours.find(text) == id
    assert json.loads((tmp_path / "tokenizer.json").read_text())["added_tokens"]
