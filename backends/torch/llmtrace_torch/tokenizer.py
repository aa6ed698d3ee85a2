"""A model's own tokenizer, through transformers, with the exact text of every token.

**Byte-level**: tokenizers that spell bytes with 256 printable letters (GPT-2's and its kin); **sentencepiece**: those that write a
space as `▁`, and a byte that no token covers as `<0xE2>`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import transformers

from llmtrace.trace import Token
from llmtrace_torch.quiet import quiet

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json", "tiktoken.model")
"""Any of these in a directory means that it has a tokenizer."""
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPACE = "\u2581"


class TransformersTokenizer:
    """Text to ids and ids to exact text."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._added = {int(id) for id in inner.added_tokens_decoder}
        self._scheme = _scheme(inner)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text, with or without the special tokens that the tokenizer adds by itself."""
        return [int(id) for id in self._inner(text, add_special_tokens=special, verbose=False)["input_ids"]]

    def token(self, id: int) -> Token:
        """One token with its text, and its bytes where they are not valid UTF-8 alone. An id without an entry has the text ''."""
        piece = self._inner.convert_ids_to_tokens(id)
        if piece is None:
            return Token(id)
        if id in self._added or self._scheme == "plain":
            return Token(id, piece)
        if self._scheme == "decode":
            return Token(id, self._inner.decode([id], skip_special_tokens=False, clean_up_tokenization_spaces=False))
        return _exact(id, _bytes_of(piece) if self._scheme == "bytes" else _sentencepiece(piece))


def _exact(id: int, raw: bytes) -> Token:
    try:
        return Token(id, raw.decode("utf-8"))
    except UnicodeDecodeError:
        return Token(id, raw.decode("utf-8", "replace"), raw)


def _letters() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes are themselves, the others the letters from U+0100 on, in order."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in kept]
    return {chr(byte): byte for byte in kept} | {chr(256 + place): byte for place, byte in enumerate(others)}


LETTERS = _letters()


def _bytes_of(piece: str) -> bytes:
    """The bytes that a byte-level piece spells; a letter outside the alphabet stands for itself."""
    return b"".join(bytes([LETTERS[letter]]) if letter in LETTERS else letter.encode("utf-8") for letter in piece)


def _sentencepiece(piece: str) -> bytes:
    found = BYTE.fullmatch(piece)
    return bytes([int(found[1], 16)]) if found else piece.replace(SPACE, " ").encode("utf-8")


def _scheme(inner: Any) -> str:
    """How pieces spell text, read from the tokenizer's own decoder."""
    backend = getattr(inner, "backend_tokenizer", None)
    if backend is None:
        return "decode"
    decoder = json.loads(backend.to_str()).get("decoder")
    if decoder is None:
        return "plain"
    kinds = {step["type"]: step for step in decoder.get("decoders", [decoder])}
    if "ByteLevel" in kinds:
        return "bytes"
    if "Metaspace" in kinds or SPACE in json.dumps(kinds.get("Replace", {}), ensure_ascii=False):
        return "sentencepiece"
    return "decode"


def open_tokenizer(source: Path, *, gguf: bool = False, trust: bool = False) -> tuple[TransformersTokenizer | None, str]:
    """The tokenizer of a directory or GGUF file, or None and the reason, as a note."""
    if not gguf and not any((source / name).exists() for name in FILES):
        return None, "the directory has no tokenizer: prompts are token ids"
    try:
        with quiet():
            if gguf:
                inner = transformers.AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True)
            else:
                inner = transformers.AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=trust)
        return TransformersTokenizer(inner), ""
    except Exception as error:  # a tokenizer may fail in any way; the model still takes token ids
        return None, f"its tokenizer cannot be opened ({type(error).__name__}: {error}): prompts are token ids"
