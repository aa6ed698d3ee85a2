"""Whose the processors are while a runtime runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from threadpoolctl import ThreadpoolController


@contextmanager
def runtime_has_processors() -> Iterator[None]:
    """For a backend to enter around a run: NumPy's products, of which what is derived meanwhile is made, run on the calling thread alone.

    A runtime's threads do not sleep between two operators; they spin, each on its processor. A product of NumPy's that is shared among as many
    threads waits for the last of them: measured with two processors and llama.cpp, patterns take 2.7 times as long as the model, and as good as
    nothing with this.
    """
    with _numpy().limit(limits=1):
        yield


@lru_cache(maxsize=1)
def _numpy() -> ThreadpoolController:
    """The BLAS that NumPy brings; none where it uses the system's, which may be the runtime's too."""
    package = Path(np.__file__).parent
    homes = (package.parent / "numpy.libs", package / ".dylibs")
    every = ThreadpoolController()
    own = [each["filepath"] for each in every.info() if Path(each["filepath"]).parent in homes]
    return every.select(filepath=own)
