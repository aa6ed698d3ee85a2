"""GPT-2's alphabet of bytes. The oracle is the list of transformers, or of the package tokenizers, which has it too."""

from __future__ import annotations

import pytest

pytest.importorskip("llmtrace_llamacpp")

from llmtrace_llamacpp.alphabet import spelled


def test_bytes_are_spelled_as_the_byte_level_tokenizer_spells_them():
    pre = pytest.importorskip("tokenizers").pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    assert {spelled(byte) for byte in range(256)} == set(pre.alphabet())
    for byte in range(128):
        assert pre.pre_tokenize_str(chr(byte))[0][0] == spelled(byte)
    assert pre.pre_tokenize_str("é")[0][0] == spelled(0xC3) + spelled(0xA9)
