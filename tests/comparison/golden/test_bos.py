"""A GGUF file that puts no `<bos>` in front, of a checkpoint whose tokenizer does (llama.cpp #23252)."""

from __future__ import annotations

import pytest

for module in ("torch", "transformers", "llmtrace_torch", "llmtrace_llamacpp"):
    pytest.importorskip(module)

import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from tests.comparison.golden.models import read, write_checkpoint

LETTERS = ["<bos>", *map(chr, range(33, 127)), "¡", "¢"]
FLAG = b"tokenizer.ggml.add_bos_token"


def test_tokens_are_told_before_numbers_with_the_first_that_differs_and_its_byte(tmp_path, answers):
    from llmtrace_llamacpp.writing import write_gguf

    checkpoint = write_checkpoint("llama", tmp_path)
    _write_tokenizer(checkpoint)
    right = write_gguf(read(checkpoint), tmp_path / "right.gguf", "F16", letters=LETTERS)
    data = bytearray(right.read_bytes())
    place = data.index(FLAG) + len(FLAG) + 4  # after the number of its type
    assert data[place] == 1
    data[place] = 0
    (tmp_path / "model.gguf").write_bytes(data)
    found, same = answers("7. A `<bos>` on one side only")
    assert found.code == 1
    assert found.headline.startswith(
        "diverges at the tokens: '<bos>' is not put in front (token 0, byte 0 of the text)"
    )
    (token,) = found.candidate["tokens"]
    assert (token["index"], token["byte"]) == (0, 0)
    assert (token["reference"]["text"], token["candidate"]["text"]) == ("<bos>", "A")
    assert found.candidate["divergences"] == []
    assert (same.code, same.candidate["tokens"]) == (0, [])


def _write_tokenizer(directory):
    inner = Tokenizer(models.BPE({text: id for id, text in enumerate(LETTERS)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken("<bos>", special=True)])
    inner.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 0)])
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<bos>").save_pretrained(directory)
