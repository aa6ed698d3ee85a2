"""A GGUF file as llama.cpp has loaded it: its vocabulary, and the contexts that run it."""

from __future__ import annotations

import ctypes as c
import os
import threading
import weakref
from functools import cached_property
from pathlib import Path

from llmtrace.errors import ModelOpenError, OptionError, PromptError, UnsupportedModelError
from llmtrace_llamacpp import log
from llmtrace_llamacpp.alphabet import BLANK, spelled
from llmtrace_llamacpp.context import Context
from llmtrace_llamacpp.holder import Holder
from llmtrace_llamacpp.layout import GPU_LAYERS, Place, patch
from llmtrace_llamacpp.library import Library, load
from llmtrace_llamacpp.node import Node
from llmtrace_llamacpp.settings import ContextSettings
from llmtrace_llamacpp.watch import Watcher

__all__ = ["Context", "ContextSettings", "NativeModel", "Node", "Watcher"]

NO_VOCABULARY = 0
"""`llama_vocab_type` of a file without a tokenizer."""
BY_BYTES = (1, 4)
"""Vocabularies (SentencePiece and unigram) whose tokenizer ends the process when it needs a byte that has no token."""
BYTE_LEVEL = 2
"""The one whose tokenizer leaves such a byte out, and does not say so: `LlamaCppTokenizer` does."""
MOST_GPU_LAYERS = 1 << 20


class NativeModel:
    """An open model. Reading its vocabulary is safe from any thread; so is running several contexts at once, each in one thread."""

    def __init__(self, path: str | Path, *, library: Library | None = None, gpu_layers: int = 0) -> None:
        """Load `path`; `gpu_layers` blocks go to an accelerator, -1 is all.

        Raises `ModelOpenError` with the library's own reason. A hostile file can end the process: see `guard.admit`.
        """
        if not -1 <= gpu_layers <= MOST_GPU_LAYERS:
            raise OptionError(f"gpu_layers={gpu_layers} is no number of layers: 0 is none, -1 is all.")
        if not Path(path).is_file():
            raise ModelOpenError(f"{path} is not a file: give the path of a GGUF file.")
        self.library = load() if library is None else library
        self.path = str(path)
        self._api = api = self.library.api
        blob = api.llama_model_default_params()
        patch(blob, Place(GPU_LAYERS, "i"), gpu_layers)
        log.forget()
        pointer = api.llama_model_load_from_file(os.fsencode(path), blob)
        if not pointer:
            raise ModelOpenError(f"llama.cpp cannot load {path}: {log.last_words()}.")
        self._pointer: int = pointer
        self._holder = Holder(api, pointer)
        self._free = weakref.finalize(self, self._holder.release)
        self._lock = threading.Lock()
        self._contexts: weakref.WeakSet[Context] = weakref.WeakSet()
        if api.llama_model_has_encoder(pointer) or not api.llama_model_has_decoder(pointer):
            self.close()
            raise UnsupportedModelError(f"{path} is an encoder: only models that continue a text are traced.")
        self._vocab: int = api.llama_model_get_vocab(pointer)
        self.n_vocab: int = api.llama_vocab_n_tokens(self._vocab)
        """Tokens of the vocabulary, and columns of the logits."""
        self.n_ctx_train: int = api.llama_model_n_ctx_train(pointer)
        """The longest prompt that the model was made for."""
        if self.n_vocab < 1:
            self.close()
            raise ModelOpenError(f"{path} has no vocabulary, not even its size: it cannot be run. Convert it again.")

    @property
    def description(self) -> str:
        """What llama.cpp calls it: `llama 135M Q4_1`."""
        buffer = c.create_string_buffer(256)
        self._api.llama_model_desc(self._open(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    def metadata(self, key: str) -> str | None:
        """One value of the file's metadata, as text; None for a key that it has not. Bytes that are no UTF-8 become U+FFFD."""
        room = 256
        for _ in range(2):
            buffer = c.create_string_buffer(room)
            length = self._api.llama_model_meta_val_str(self._open(), key.encode(), buffer, room)
            if length < room:
                return None if length < 0 else buffer.raw[:length].decode("utf-8", "replace")
            room = length + 1
        return None

    @property
    def vocabulary(self) -> int:
        """Its kind, as `llama_vocab_type` counts them."""
        self._open()
        return int(self._api.llama_vocab_type(self._vocab))

    @property
    def has_tokenizer(self) -> bool:
        """Whether the file says how text becomes tokens."""
        return self.vocabulary != NO_VOCABULARY

    @property
    def bos(self) -> int | None:
        """The token that begins a text, if there is one."""
        return self._special("bos")

    @property
    def eos(self) -> int | None:
        """The token that ends a text, if there is one."""
        return self._special("eos")

    @property
    def adds_bos(self) -> bool:
        """Whether the file asks for `bos` before a prompt."""
        self._open()
        return bool(self._api.llama_vocab_get_add_bos(self._vocab))

    @property
    def adds_eos(self) -> bool:
        """Whether the file asks for `eos` after a prompt."""
        self._open()
        return bool(self._api.llama_vocab_get_add_eos(self._vocab))

    def lacks(self, byte: int) -> bool:
        """Whether no token of the vocabulary is this one byte."""
        return byte in self._missing

    def is_control(self, token: int) -> bool:
        """Whether a token is a mark rather than text. Raises `PromptError` if there is no such token."""
        return self.has_tokenizer and bool(self._api.llama_vocab_is_control(self._vocab, self._token(token)))

    def tokenize(self, text: str, special: bool, parse_special: bool) -> list[int]:
        """Ids of a text: `special` adds what the file asks for, `parse_special` reads marks such as `<|im_start|>` as tokens.

        Raises `PromptError` if the file has no tokenizer, or cannot express the text.
        """
        if not self.has_tokenizer:
            raise PromptError(f"{self.path} has no tokenizer: give token ids instead.")
        try:
            raw = text.encode()
        except UnicodeEncodeError as error:
            raise PromptError(f"The prompt is not valid Unicode: {error.reason} at character {error.start}.") from error
        self._check_bytes(raw)
        room = len(raw) + 8
        for _ in range(2):
            buffer = (c.c_int32 * room)()
            count = self._api.llama_tokenize(
                self._vocab, raw, len(raw), buffer, room, c.c_bool(special), c.c_bool(parse_special)
            )
            if count >= 0:
                return list(buffer[:count])
            room = -count
        raise PromptError(f"llama.cpp cannot tokenize a prompt of {len(raw)} bytes: it is too long.")

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for, marks written out; may be part of a character. Raises `PromptError` for no such token."""
        self._token(token)
        if not self.has_tokenizer:
            return b""
        room = 64
        for _ in range(2):
            buffer = c.create_string_buffer(room)
            count = self._api.llama_token_to_piece(self._vocab, token, buffer, room, 0, c.c_bool(True))
            if count >= 0:
                return buffer.raw[:count]
            room = -count
        return b""

    def context(self, settings: ContextSettings) -> Context:
        """A context of its own. Raises `OptionError` if it is longer than the model, `ModelOpenError` if there is no memory for it."""
        with self._lock:
            made = Context(
                self.library,
                self._open(),
                self._holder,
                settings,
                n_vocab=self.n_vocab,
                n_train=self.n_ctx_train,
                path=self.path,
                keep=self,
            )
            self._contexts.add(made)
            return made

    def close(self) -> None:
        """Release the model and its contexts; waits for those that are running. Closing twice is allowed."""
        with self._lock:
            for context in tuple(self._contexts):
                context.close()
            self._free()

    def __enter__(self) -> NativeModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> int:
        if not self._free.alive:
            raise ModelOpenError(f"{self.path} is closed: open the model again.")
        return self._pointer

    def _special(self, which: str) -> int | None:
        self._open()
        token = int(getattr(self._api, f"llama_vocab_{which}")(self._vocab))
        return token if 0 <= token < self.n_vocab else None

    def _token(self, token: int) -> int:
        self._open()
        if not 0 <= token < self.n_vocab:
            raise PromptError(f"{token} is no token of {self.path}: ids go from 0 to {self.n_vocab - 1}.")
        return token

    def _check_bytes(self, raw: bytes) -> None:
        """Raise `PromptError` for a text that the library's tokenizer could not survive."""
        lacking = self._missing.intersection(raw + BLANK.encode()) if self.vocabulary in BY_BYTES else ()
        if lacking:  # blanks become that sign
            raise PromptError(
                f"The vocabulary of {self.path} has no token for the byte {min(lacking):#04x}, which the prompt may need: give token "
                "ids instead."
            )

    @cached_property
    def _missing(self) -> frozenset[int]:
        """Bytes that have neither a token `<0x41>` nor one that is the byte itself, as this kind of vocabulary writes it."""
        missing = set(range(256))
        names = {f"<0x{byte:02X}>".encode(): byte for byte in missing}
        names |= {spelled(b).encode() if self.vocabulary == BYTE_LEVEL else bytes([b]): b for b in missing}
        for token in range(self.n_vocab):
            missing.discard(names.get(self._api.llama_vocab_get_text(self._vocab, token), -1))
            if not missing:
                break
        return frozenset(missing)
