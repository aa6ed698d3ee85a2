"""The kit's law of tokenizers holds of those that models are shipped with."""

from __future__ import annotations

import pytest

import llmtrace
from llmtrace.testing.kit.base import Kit
from llmtrace.testing.kit.tokenizing import lawful
from llmtrace.tokenizer import open_tokenizer

TEXTS = (Kit.text, "A line,\nand 2 more: {x: [1]}!")
FAST = {
    "bytes": ("ByteLevel", {"add_prefix_space": False}),
    "bytes after a blank": ("ByteLevel", {"add_prefix_space": True}),
    "pieces": ("Metaspace", {}),
}


def test_it_holds_of_the_embedded_model():
    with llmtrace.open("builtin:induction") as model:
        lawful(model.tokenizer, "a", model.spec.vocab)  # its tokens are words, whose texts have no blanks


@pytest.mark.parametrize("kind", FAST)
@pytest.mark.parametrize("text", TEXTS)
def test_it_holds_of_the_usual_kinds(kind, text, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    name, how = FAST[kind]
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    words = sorted({*alphabet, *"\u2581\n ", *map(chr, range(32, 127)), "the", "at", "\u2581the", "\u0120the"})
    vocab = {"<s>": 0} | {word: 1 + place for place, word in enumerate(words)}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, [], unk_token="<s>"))
    inner.pre_tokenizer = getattr(tokenizers.pre_tokenizers, name)(**how)
    inner.decoder = getattr(tokenizers.decoders, name)()
    inner.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    inner.add_special_tokens(["<s>"])
    inner.save(str(tmp_path / "tokenizer.json"))
    tokenizer, note = open_tokenizer(tmp_path)
    assert tokenizer is not None, note
    lawful(tokenizer, text, len(vocab))
