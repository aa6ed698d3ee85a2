"""How many bytes a weight takes in the type that it is stored in."""

from __future__ import annotations

import re
from collections.abc import Mapping

from llmtrace.comparison.formats import plain
from llmtrace.gguf_header import BLOCKS
from llmtrace.schema.precision import BYTES

PACKED: Mapping[str, tuple[int, int]] = {name.lower(): (numbers, size) for name, numbers, size in BLOCKS.values()}
"""ggml's types: numbers of a block, and its bytes, scales and all."""
INTEGERS = re.compile(r"u?int(\d+)")


def bytes_of(kind: str, numbers: int) -> int | None:
    """Bytes of so many numbers; None for a type that is not known. Of ONNX's integers the scales are not counted.

    >>> bytes_of("Q4_0", 64), bytes_of("bfloat16", 64), bytes_of("int4", 64), bytes_of("?", 64)
    (36, 128, 32, None)
    """
    if kind.lower() in PACKED:
        block, size = PACKED[kind.lower()]
        return -(-numbers // block) * size
    if plain(kind) in BYTES:
        return numbers * BYTES[plain(kind)]
    if found := INTEGERS.fullmatch(kind.lower()):
        return -(-numbers * int(found[1]) // 8)
    return None
