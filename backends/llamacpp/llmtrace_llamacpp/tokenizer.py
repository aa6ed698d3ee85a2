"""llama.cpp's own tokenizer."""

from __future__ import annotations

from functools import cached_property

from llmtrace.trace import Token
from llmtrace_llamacpp.native import NativeModel


class LlamaCppTokenizer:
    """Text to ids as llama.cpp has it; marks such as `<|im_start|>` in a text are read as the tokens that they are."""

    def __init__(self, model: NativeModel) -> None:
        self._model = model

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text; with `special`, what the file asks for around it."""
        return self._model.tokenize(text, special, parse_special=True)

    def token(self, id: int) -> Token:
        """One token with its text, and its bytes where they are not valid UTF-8 alone."""
        piece = self._model.piece(id)
        try:
            return Token(id, piece.decode("utf-8"))
        except UnicodeDecodeError:
            return Token(id, piece.decode("utf-8", "replace"), piece)

    def find(self, text: str) -> int | None:
        """The id of the token whose exact text this is."""
        return self._ids.get(text.encode("utf-8", "surrogatepass"))

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        """The first id of each piece."""
        return {self._model.piece(id): id for id in reversed(range(self._model.n_vocab))}
