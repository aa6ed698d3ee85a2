"""Windows that are wider than the prompts at which scores are read: seen in the masks alone, which are made of positions and cost little."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmtrace.dataflow.forms import HIDDEN
from llmtrace.dataflow.reading.reader import Reader
from llmtrace.dataflow.reading.turns import longest
from llmtrace.errors import BackendError
from llmtrace.schema.sites import Array

FAR = 4224
"""Tokens of the prompt whose masks are looked at: more than the window of Mistral, Gemma 2 and Phi-3."""


def far_window(reader: Reader, names: Sequence[str]) -> int | None:
    """How many keys the last query of a long prompt sees, where some value among `names` hides earlier ones from it."""
    length = min(reader.context, FAR)
    if not names or longest(reader, names) < length:
        return None
    return reader.known(("window", *names), lambda: _window(reader, names, length))


def _window(reader: Reader, names: Sequence[str], length: int) -> int | None:
    try:
        made = reader.pieces.run({}, names, length)
    except BackendError:  # masks may end somewhere
        return None
    seen = [
        _seen(array[..., -1, :]) for array in made.values() if array.ndim > 1 and array.shape[-2:] == (length, length)
    ]
    found = min(seen, default=length)
    return found if found < length else None


def _seen(row: Array) -> int:
    """How many of the last keys are not hidden; a switch says of each what it says of the last, which is the query itself."""
    if row.dtype.kind not in "bfV":
        return int(row.shape[-1])
    hidden = row != row[..., -1:] if row.dtype == bool else row.astype(np.float32) < HIDDEN
    places = np.flatnonzero(hidden.any(axis=tuple(range(hidden.ndim - 1))))
    return int(row.shape[-1] - 1 - places.max(initial=-1))
