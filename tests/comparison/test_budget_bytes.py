"""Bytes of a weight by its type: as the package gguf has them, and by hand."""

from __future__ import annotations

import pytest

from llmtrace.comparison.budget_bytes import PACKED, bytes_of


def test_the_sizes_of_blocks_are_those_of_the_package_gguf():
    constants = pytest.importorskip("gguf.constants")
    for kind, (block, size) in constants.GGML_QUANT_SIZES.items():
        if kind.name.lower() in PACKED:
            assert bytes_of(kind.name, 5 * block) == 5 * size, kind.name
    assert {"q4_0", "q4_1", "q8_0", "q6_k", "f16", "bf16"} <= PACKED.keys()


def test_plain_types_and_integers():
    assert [bytes_of(kind, 96) for kind in ("float32", "float16", "bfloat16", "int8", "uint4")] == [
        384,
        192,
        192,
        96,
        48,
    ]
    assert bytes_of("", 96) is None
    assert bytes_of("Q4_0", 33) == 36
    assert [bytes_of("int4", 33), bytes_of("uint2", 33)] == [17, 9]  # what does not fill a byte takes one
