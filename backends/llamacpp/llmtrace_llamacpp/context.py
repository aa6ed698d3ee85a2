"""A context of llama.cpp: a model's cache and its graph under some settings. **Decode**: one forward pass over a prompt, from position
0, with nothing from before. **Batch**: what the library takes in one call; **run**: what its graph computes at once.
"""

from __future__ import annotations

import ctypes as c
import threading
import weakref
from collections.abc import Sequence

import numpy as np

from llmtrace.errors import BackendError, ModelOpenError, OptionError, PromptError
from llmtrace.schema.sites import Array
from llmtrace_llamacpp import log
from llmtrace_llamacpp.holder import Holder
from llmtrace_llamacpp.layout import patch
from llmtrace_llamacpp.library import Library
from llmtrace_llamacpp.settings import CACHE_TYPES, FLASH, ContextSettings
from llmtrace_llamacpp.watch import MAGIC, Calls, Watcher


class Context:
    """A cache and a graph. Not reentrant: a second thread waits until the first one's pass is over; a watcher cannot decode with it.

    Made by `NativeModel.context`, which it must not outlive: closing the model closes it.
    """

    def __init__(
        self,
        library: Library,
        model: int,
        holder: Holder,
        settings: ContextSettings,
        *,
        n_vocab: int,
        n_train: int,
        path: str,
        keep: object,
    ) -> None:
        """`model` is the library's pointer, `holder` releases it, and `keep` is what must not be collected before the context is."""
        api = library.api
        if n_train >= 1 and settings.n_ctx > n_train:
            raise OptionError(f"{path} was made for {n_train} tokens: a context of n_ctx={settings.n_ctx} is longer.")
        self.settings = settings
        self._keep = keep
        self._api, self._n_vocab, self._path = api, n_vocab, path
        self._lock, self._busy = threading.RLock(), False
        self._calls = Calls(api)
        blob = api.llama_context_default_params()
        batch = settings.n_ctx if settings.n_batch is None else min(settings.n_batch, settings.n_ctx)
        values = {
            "n_ctx": settings.n_ctx, "n_batch": batch, "n_ubatch": min(settings.n_ubatch or batch, batch), "n_seq_max": 1,
            "n_threads": settings.threads, "n_threads_batch": settings.threads, "flash_attn": FLASH[settings.flash_attn],
            "type_k": CACHE_TYPES[settings.type_k], "type_v": CACHE_TYPES[settings.type_v], "swa_full": settings.swa_full,
            "offload_kqv": settings.offload, "op_offload": settings.offload,
        }  # fmt: skip
        if settings.watched:
            values |= {"cb_eval": c.cast(self._calls.function, c.c_void_p).value or 0, "cb_eval_user_data": MAGIC}
        for name, value in values.items():
            patch(blob, library.layout[name], int(value))
        log.forget()
        pointer = api.llama_init_from_model(model, blob)
        if not pointer:
            raise ModelOpenError(
                f"llama.cpp cannot make a context of {settings.n_ctx} tokens for {path}: {log.last_words()}."
            )
        self._pointer: int = pointer
        holder.add(pointer)
        self._free = weakref.finalize(self, holder.drop, pointer)
        self.n_batch: int = min(int(api.llama_n_batch(pointer)), settings.n_ctx, batch)
        """Tokens in one call of the library."""
        self.n_ubatch: int = int(api.llama_n_ubatch(pointer))
        """Tokens in one run of the graph."""
        if not api.llama_get_memory(pointer):
            self.close()
            raise ModelOpenError(f"{path} has no cache of keys and values in llama.cpp: it does not continue a text.")

    def runs(self, tokens: int) -> tuple[range, ...]:
        """The positions that each run of the graph computes, for a prompt of so many tokens."""
        return tuple(
            range(first, min(first + self.n_ubatch, batch.stop))
            for batch in self._batches(tokens)
            for first in range(batch.start, batch.stop, self.n_ubatch)
        )

    def _batches(self, tokens: int) -> tuple[range, ...]:
        return tuple(range(first, min(first + self.n_batch, tokens)) for first in range(0, tokens, self.n_batch))

    def decode(self, tokens: Sequence[int], watcher: Watcher | None = None) -> Array:
        """The logits [token, vocab] of one pass over the tokens, float32, a copy. What the watcher raises is raised, unchanged.

        Raises `PromptError` for no tokens, too many, or an id that is not in the vocabulary; `BackendError` if the library fails.
        """
        ids = self._checked(tokens)
        with self._lock:
            if self._busy:
                raise BackendError("A watcher cannot decode with the context that it watches: open another.")
            if not self._free.alive:
                raise ModelOpenError(f"The context of {self._path} is closed: open the model again.")
            if watcher is not None and not self.settings.watched:
                raise BackendError("The context was made with watched=False: no watcher can be given to it.")
            self._busy = True
            try:
                return self._decode(ids, watcher)
            finally:
                self._busy = False

    def _checked(self, tokens: Sequence[int]) -> Array:
        ids = np.asarray(tokens)
        if ids.ndim != 1 or not ids.size:
            raise PromptError("A prompt needs at least one token.")
        if not np.issubdtype(ids.dtype, np.integer):
            raise PromptError(f"Token ids are integers, not {ids.dtype}.")
        if ids.size > self.settings.n_ctx:
            raise PromptError(
                f"The prompt has {ids.size} tokens, and the context of {self._path} takes {self.settings.n_ctx}."
            )
        wrong = ids[(ids < 0) | (ids >= self._n_vocab)]
        if wrong.size:
            raise PromptError(f"{wrong[0]} is no token of {self._path}: ids go from 0 to {self._n_vocab - 1}.")
        return ids.astype(np.int32)

    def _decode(self, ids: Array, watcher: Watcher | None) -> Array:
        api, calls, runs = self._api, self._calls, len(self.runs(len(ids)))
        api.llama_memory_clear(api.llama_get_memory(self._pointer), c.c_bool(True))
        logits = np.empty((len(ids), self._n_vocab), np.float32)
        with calls.watched_by(watcher):
            for batch in self._batches(len(ids)):
                self._compute(ids, batch)
                logits[batch.start : batch.stop] = self._logits(len(batch))
        if watcher is not None and calls.runs != runs:
            raise BackendError(
                f"llama.cpp ran its graph for {self._path} {calls.runs} times, not {runs}: this build splits prompts in a way that "
                "this version does not know. Use another, or a prompt that fits n_ubatch."
            )
        return logits

    def _compute(self, ids: Array, positions: range) -> None:
        """One call of the library, after those for the positions before."""
        api, count = self._api, len(positions)
        batch = api.llama_batch_init(count, 0, 1)
        if not batch.token or not batch.seq_id:
            raise BackendError(f"llama.cpp has no memory for a batch of {count} tokens.")
        try:
            batch.n_tokens = count
            places = np.arange(positions.start, positions.stop, dtype=np.int32)
            for name, values in (("token", ids[positions.start : positions.stop]), ("pos", places)):
                c.memmove(getattr(batch, name), values.ctypes.data, 4 * count)
            for i in range(count):
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = 0
                batch.logits[i] = 1  # all: else the last block is computed for the wanted rows only
            log.forget()
            status = api.llama_decode(self._pointer, batch)
        finally:
            api.llama_batch_free(batch)
        if self._calls.error is not None:
            raise self._calls.taken()
        if status:
            raise BackendError(
                f"llama.cpp could not decode {count} tokens of {self._path} (status {status}): {log.last_words()}."
            )

    def _logits(self, count: int) -> Array:
        """Of the last call: the library's own memory."""
        found = self._api.llama_get_logits(self._pointer)
        if not found:
            raise BackendError(f"llama.cpp has no logits for {self._path}: it is not a model that continues a text.")
        return np.ctypeslib.as_array(found, (count, self._n_vocab))

    def close(self) -> None:
        """Release the cache. Closing twice is allowed; closing from within a watcher is a `BackendError`."""
        with self._lock:
            if self._busy:
                raise BackendError("A watcher cannot close the context that it watches.")
            self._free()

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
