"""How a vocabulary spells text. **Piece**: a token as the vocabulary has it (`ĠParis`, `▁Paris`, `<0x0A>`); its exact text follows from
the piece and the kind of spelling, without what a decoder would strip or join.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from llmtrace.trace import Token

Spelling = Literal["bytes", "blocks", "decoded"]
"""Bytes as printable letters (GPT-2) · spaces as `▁` (SentencePiece) · neither: as the tokenizer's own decoder says."""
BLOCK = "\u2581"
BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")


def _byte_letters() -> dict[str, int]:
    """GPT-2's printable letter of each byte: itself where it is printable in Latin-1, else the next letter from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTE_OF = _byte_letters()
LETTER_OF = {byte: letter for letter, byte in BYTE_OF.items()}


def spelling_of(data: Mapping[str, Any]) -> Spelling:
    """Which spelling the parts of a `tokenizer.json` undo."""
    kinds = {str(part.get("type")) for name in ("decoder", "pre_tokenizer") for part in _flat(data.get(name))}
    if "ByteLevel" in kinds:
        return "bytes"
    marks = [
        part for name in ("decoder", "normalizer") for part in _flat(data.get(name)) if part.get("type") == "Replace"
    ]
    if "Metaspace" in kinds or any(BLOCK in str(part) for part in marks):
        return "blocks"
    return "decoded"


def _flat(part: Any) -> Iterator[Mapping[str, Any]]:
    """A part of the pipeline, and the parts of a sequence of parts."""
    if isinstance(part, Mapping):
        yield part
        for inside in part.get("decoders") or part.get("pretokenizers") or part.get("normalizers") or ():
            yield from _flat(inside)


def read(id: int, piece: str, spelling: Spelling) -> Token | None:
    """The token that a piece spells, with its bytes where they are not valid UTF-8 alone; None where only the decoder can say.

    >>> read(7, "ĠParis", "bytes")
    Token(id=7, text=' Paris', bytes=None)
    """
    if spelling == "bytes" and all(letter in BYTE_OF for letter in piece):
        return _from_bytes(id, bytes(BYTE_OF[letter] for letter in piece))
    if spelling == "blocks":
        byte = BYTE.fullmatch(piece)
        return _from_bytes(id, bytes([int(byte[1], 16)])) if byte else Token(id, piece.replace(BLOCK, " "))
    return None


def _from_bytes(id: int, raw: bytes) -> Token:
    try:
        return Token(id, raw.decode())
    except UnicodeDecodeError:
        return Token(id, raw.decode(errors="replace"), raw)


def pieces(text: str, spelling: Spelling) -> list[str]:
    """How a vocabulary may spell a text as one piece, the likeliest first; nothing for a text that is not Unicode.

    >>> pieces(" Paris", "blocks")
    ['▁Paris', ' Paris']
    """
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        return []
    own = [text, f"<0x{raw[0]:02X}>"] if len(raw) == 1 else [text]
    if spelling == "bytes":
        return ["".join(LETTER_OF[byte] for byte in raw), text]
    return [text.replace(" ", BLOCK), *own] if spelling == "blocks" else own
