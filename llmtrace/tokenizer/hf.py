"""Any other `tokenizer.json`, through the library `tokenizers`. **Piece**: a token as the vocabulary spells it (`ĠParis`, `▁Paris`,
`<0x0A>`); its exact text follows from the piece and the kind of spelling, without what a decoder would strip or join.

Importing this module imports the library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import tokenizers
from attrs import frozen

from llmtrace.errors import ModelOpenError
from llmtrace.trace import Token

Spelling = Literal["bytes", "blocks", "decoded"]
"""Bytes as printable letters (GPT-2) · spaces as `▁` (SentencePiece) · neither: as the tokenizer's own decoder says."""


def _byte_letters() -> dict[str, int]:
    """GPT-2's printable letter of each byte: itself where it is printable in Latin-1, else the next letter from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTE_OF = _byte_letters()
LETTER_OF = {byte: letter for letter, byte in BYTE_OF.items()}


def open_hf(path: Path, data: Mapping[str, Any]) -> HfTokenizer:
    """Open a `tokenizer.json` whose content is `data`. Raises `ModelOpenError` with the library's reason."""
    try:
        inner = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise ModelOpenError(
            f"{path} is refused by tokenizers {tokenizers.__version__}: {error}. Fetch it again, or remove it to prompt by "
            "token ids."
        ) from error
    inner.no_truncation()
    inner.no_padding()
    added = {int(token["id"]): str(token["content"]) for token in data.get("added_tokens") or []}
    return HfTokenizer(inner, added, _spelling(data))


def _spelling(data: Mapping[str, Any]) -> Spelling:
    kinds = {str(part.get("type")) for name in ("decoder", "pre_tokenizer") for part in _flat(data.get(name))}
    if "ByteLevel" in kinds:
        return "bytes"
    marks = [
        part for name in ("decoder", "normalizer") for part in _flat(data.get(name)) if part.get("type") == "Replace"
    ]
    if "Metaspace" in kinds or any("▁" in str(part) for part in marks):
        return "blocks"
    return "decoded"


def _flat(part: Any) -> Iterator[Mapping[str, Any]]:
    """A part of the pipeline, and the parts of a sequence of parts."""
    if isinstance(part, Mapping):
        yield part
        for inside in part.get("decoders") or part.get("pretokenizers") or part.get("normalizers") or ():
            yield from _flat(inside)


@frozen(eq=False)
class HfTokenizer:
    """The library's tokenizer, with exact texts."""

    inner: tokenizers.Tokenizer
    added: Mapping[int, str]
    """Id to text of the added tokens: these are spelled as they are."""
    spelling: Spelling

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids, with or without those that the post-processor adds."""
        return list(self.inner.encode(text, add_special_tokens=special).ids)

    def find(self, text: str) -> int | None:
        """The id of the token whose exact text this is, also where encoding would put a space in front."""
        raw = text.encode()
        pieces = [text, f"<0x{raw[0]:02X}>"] if len(raw) == 1 else [text]
        if self.spelling == "bytes":
            pieces = [text, "".join(LETTER_OF[byte] for byte in raw)]
        elif self.spelling == "blocks":
            pieces = [text.replace(" ", "▁"), *pieces]
        ids = [self.inner.token_to_id(piece) for piece in pieces]
        return next((id for id in ids if id is not None and self.token(id) == Token(id, text)), None)

    def token(self, id: int) -> Token:
        """The exact text of an id: a leading blank stays; bytes that are no UTF-8 alone are kept. An id without a token has none."""
        if id in self.added:
            return Token(id, self.added[id])
        piece = self.inner.id_to_token(id)
        if piece is None:
            return Token(id)
        if self.spelling == "bytes" and all(letter in BYTE_OF for letter in piece):
            return _from_bytes(id, bytes(BYTE_OF[letter] for letter in piece))
        if self.spelling == "blocks":
            byte = re.fullmatch("<0x([0-9A-Fa-f]{2})>", piece)
            return _from_bytes(id, bytes([int(byte[1], 16)])) if byte else Token(id, piece.replace("▁", " "))
        return Token(id, self.inner.decode([id], skip_special_tokens=False))


def _from_bytes(id: int, raw: bytes) -> Token:
    try:
        return Token(id, raw.decode())
    except UnicodeDecodeError:
        return Token(id, raw.decode(errors="replace"), raw)
