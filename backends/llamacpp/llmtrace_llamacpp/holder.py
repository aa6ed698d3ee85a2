"""What the library must release, in the order in which it must: the contexts of a model before the model, however they are dropped."""

from __future__ import annotations

import threading

from llmtrace_llamacpp.abi import Api


class Holder:
    """A loaded model and its contexts, as pointers. Everything may be called twice, and by the garbage collector at any moment."""

    def __init__(self, api: Api, model: int) -> None:
        self._api, self._model = api, model
        self._contexts: set[int] = set()
        self._lock = threading.RLock()  # the collector may interrupt whoever holds it

    def add(self, context: int) -> None:
        """A context that was made of the model."""
        with self._lock:
            self._contexts.add(context)

    def drop(self, context: int) -> None:
        """Release one context."""
        with self._lock:
            if context in self._contexts:
                self._contexts.remove(context)
                self._api.llama_free(context)

    def release(self) -> None:
        """Release the model, after the contexts that are left."""
        with self._lock:
            for context in tuple(self._contexts):
                self.drop(context)
            model, self._model = self._model, 0
            if model:
                self._api.llama_model_free(model)
