"""A model's own tokenizer, through transformers: it encodes as transformers does, and the core tells the exact text of every token."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import transformers

from llmtrace.chat import ChatTemplate
from llmtrace.tokenizer.hf import HfTokenizer
from llmtrace.trace import Token
from llmtrace_torch.gguf_model import alone
from llmtrace_torch.quiet import quiet

FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tekken.json",
    "tiktoken.model",
)
"""Any of these in a directory means that it has a tokenizer."""


class TransformersTokenizer:
    """Text to ids as transformers has it, which may change what the file says (`add_bos_token`, …)."""

    def __init__(self, inner: Any, file: str = "") -> None:
        self._inner = inner
        self._file = file
        """What it was opened from."""

    @property
    def chat_template(self) -> ChatTemplate | None:
        """The model's chat template: the default one, where there are several."""
        found = self._inner.chat_template
        text = found.get("default") if isinstance(found, dict) else found
        marks = {name: str(mark) for name, mark in self._inner.special_tokens_map.items() if not isinstance(mark, list)}
        return ChatTemplate(text, self._file, marks) if isinstance(text, str) and text else None

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text, with or without the special tokens that the tokenizer adds by itself."""
        return [int(id) for id in self._inner(text, add_special_tokens=special, verbose=False)["input_ids"]]

    def token(self, id: int) -> Token:
        """One token as its decoder has it. An id without an entry has the text ''."""
        if self._inner.convert_ids_to_tokens(id) is None:
            return Token(id)
        return Token(id, self._inner.decode([id], skip_special_tokens=False, clean_up_tokenization_spaces=False))


class FastTokenizer(TransformersTokenizer):
    """One that runs on the library `tokenizers`, so that its vocabulary can be read: nearly every tokenizer."""

    def __init__(self, inner: Any, file: str = "") -> None:
        super().__init__(inner, file)
        self._spelled = HfTokenizer.of(inner.backend_tokenizer, file or "the model")

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """As transformers has it. Raises `PromptError` where a byte of the text is in no token."""
        ids = super().encode(text, special=special)
        self._spelled.check(text, ids)
        return ids

    def token(self, id: int) -> Token:
        """One token with its text, and its bytes where they are not valid UTF-8 alone. An id without an entry has the text ''."""
        return self._spelled.token(id)

    def find(self, text: str) -> int | None:
        """The id of the token whose exact text this is, also where encoding would put a space in front."""
        return self._spelled.find(text)


def open_tokenizer(
    source: Path, *, gguf: bool = False, trust: bool = False
) -> tuple[TransformersTokenizer | None, str]:
    """The tokenizer of a directory or GGUF file, or None and the reason, as a note.

    `trust` lets the directory's own Python code run. A GGUF file has none, and what stands beside it is not asked.
    """
    if not gguf and not any((source / name).exists() for name in FILES):
        return None, "the directory has no tokenizer: prompts are token ids"
    where: dict[str, Any] = {"gguf_file": source.name} if gguf else {}
    try:
        with quiet(), alone(source) if gguf else nullcontext(source) as directory:
            inner = transformers.AutoTokenizer.from_pretrained(
                directory, local_files_only=True, trust_remote_code=trust and not gguf, **where
            )
        return (FastTokenizer if hasattr(inner, "backend_tokenizer") else TransformersTokenizer)(inner, str(source)), ""
    except Exception as error:  # a tokenizer may fail in any way; the model still takes token ids
        return None, f"its tokenizer cannot be opened ({type(error).__name__}: {error}): prompts are token ids"
