"""A GGUF file that puts no `<bos>` in front, of a checkpoint whose tokenizer does (llama.cpp #23252)."""

from __future__ import annotations

import pytest

for module in ("torch", "transformers", "llmtrace_torch", "llmtrace_llamacpp"):
    pytest.importorskip(module)

from tests.comparison.golden.writing import bos


def test_tokens_are_told_before_numbers_with_the_first_that_differs_and_its_byte(tmp_path, answers):
    bos(tmp_path)
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
