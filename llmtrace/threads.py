"""Whose the processors are while a runtime runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
from threadpoolctl import ThreadpoolController


@contextmanager
def runtime_has_processors() -> Iterator[None]:
    """For a backend to enter around a run: NumPy's products, of which what is derived meanwhile is made, run on the calling thread alone.

    A runtime's threads do not sleep between two operators; they spin, each on its processor. A product of NumPy's that is shared among as many
    threads waits for the last of them: measured with two processors and llama.cpp, patterns take 2.7 times as long as the model, and as good as
    nothing with this. It holds for the whole process; of models that run in several threads, the last that ends gives NumPy its threads back.
    """
    _TAKEN.take()
    try:
        yield
    finally:
        _TAKEN.give_back()


class _Taken:
    """NumPy's threads, and how many runs have taken them away."""

    def __init__(self) -> None:
        self._runs = 0
        self._lock = Lock()
        self._limit = ExitStack()

    def take(self) -> None:
        """One run more."""
        with self._lock:
            if not self._runs:
                self._limit.enter_context(_numpy().limit(limits=1))
            self._runs += 1

    def give_back(self) -> None:
        """One run less."""
        with self._lock:
            self._runs -= 1
            if not self._runs:
                self._limit.close()


_TAKEN = _Taken()


@lru_cache(maxsize=1)
def _numpy() -> ThreadpoolController:
    """The BLAS that NumPy brings; none where it uses the system's, which may be the runtime's too."""
    package = Path(np.__file__).parent
    homes = (package.parent / "numpy.libs", package / ".dylibs")
    every = ThreadpoolController()
    own = [each["filepath"] for each in every.info() if Path(each["filepath"]).parent in homes]
    return every.select(filepath=own)
