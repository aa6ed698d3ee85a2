"""Any other `tokenizer.json`, through the library `tokenizers`, with the exact text of every token. Importing this module imports the
library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import tokenizers
from attrs import frozen

from llmtrace.chat import ChatTemplate
from llmtrace.errors import ModelOpenError
from llmtrace.spans import check
from llmtrace.tokenizer.spelling import Spelling, pieces, read, spelling_of
from llmtrace.trace import Token


def open_hf(path: Path) -> HfTokenizer:
    """Open a `tokenizer.json`. Raises `ModelOpenError` with the library's reason."""
    try:
        inner = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise ModelOpenError(
            f"{path} is refused by tokenizers {tokenizers.__version__}: {error}. Fetch it again, or remove it to prompt by "
            "token ids."
        ) from error
    inner.no_truncation()
    inner.no_padding()
    return HfTokenizer.of(inner, str(path))


@frozen(eq=False)
class HfTokenizer:
    """The library's tokenizer, with exact texts."""

    inner: tokenizers.Tokenizer
    added: Mapping[int, str]
    """Id to text of the added tokens: these are spelled as they are."""
    spelling: Spelling
    file: str = "the model"
    """Where it stands, for messages."""
    chat_template: ChatTemplate | None = None
    """How a conversation is written out, where the directory says."""

    @classmethod
    def of(cls, inner: tokenizers.Tokenizer, file: str = "the model") -> HfTokenizer:
        """One that the library has opened already, from `file`; it is not changed."""
        added = {id: str(token.content) for id, token in inner.get_added_tokens_decoder().items()}
        return cls(inner, added, spelling_of(json.loads(inner.to_str())), file)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids, with or without those that the post-processor adds. Raises as `check`."""
        ids = list(self.inner.encode(text, add_special_tokens=special).ids)
        self.check(text, ids)
        return ids

    def check(self, text: str, ids: Sequence[int]) -> None:
        """Raise `PromptError` where a byte-level vocabulary that changes no text lacks a byte of this one, which is then left out."""
        if self.spelling == "bytes" and self.inner.normalizer is None:
            check([self.token(id) for id in ids], text, self.added, self.file)

    def find(self, text: str) -> int | None:
        """The id of the token whose exact text this is, also where encoding would put a space in front."""
        ids = [self.inner.token_to_id(piece) for piece in pieces(text, self.spelling)]
        return next((id for id in ids if id is not None and self.token(id) == Token(id, text)), None)

    def token(self, id: int) -> Token:
        """The exact text of an id: a leading blank stays; bytes that are no UTF-8 alone are kept. An id without a token has none."""
        if id in self.added:
            return Token(id, self.added[id])
        piece = self.inner.id_to_token(id)
        if piece is None:
            return Token(id)
        found = read(id, piece, self.spelling)
        return Token(id, self.inner.decode([id], skip_special_tokens=False)) if found is None else found
