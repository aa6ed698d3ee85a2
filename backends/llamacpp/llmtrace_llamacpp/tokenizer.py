"""llama.cpp's own tokenizer. **Dropped**: where a byte-level vocabulary lacks a byte, llama.cpp leaves it out of the prompt without a
word; here that is an error.
"""

from __future__ import annotations

from functools import cached_property

from llmtrace.chat import ChatTemplate
from llmtrace.spans import check
from llmtrace.trace import Token
from llmtrace_llamacpp.native import NativeModel

EXACT = (1, 2, 5)
"""Kinds of vocabulary (SentencePiece, byte-level BPE, RWKV) whose pieces are the text, but for a blank in front; others change it first."""
TEMPLATE = "tokenizer.chat_template"


class LlamaCppTokenizer:
    """Text to ids as llama.cpp has it; marks such as `<|im_start|>` in a text are read as the tokens that they are."""

    def __init__(self, model: NativeModel) -> None:
        self._model = model

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text; with `special`, what the file asks for around it. Raises `PromptError` for one that it cannot spell."""
        ids = self._model.tokenize(text, special, parse_special=True)
        if self._model.vocabulary in EXACT:
            marks = set(filter(self._model.is_control, ids))
            check([self.token(id) for id in ids], text, marks, self._model.path, words=self._model.lacks(ord(" ")))
        return ids

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
    def chat_template(self) -> ChatTemplate | None:
        """The file's chat template, with the tokens that begin and end a text."""
        text = self._model.metadata(TEMPLATE)
        if not text:
            return None
        ends = {"bos_token": self._model.bos, "eos_token": self._model.eos}
        marks = {name: "" if id is None else self.token(id).text for name, id in ends.items()}
        return ChatTemplate(text, self._model.path, marks)

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        """The first id of each piece."""
        return {self._model.piece(id): id for id in reversed(range(self._model.n_vocab))}
