"""Which keys a query sees, and what is added to its scores, where that follows from what the tokens are: an indexer's choice is an array that holds
one number where a key is seen.
"""

from __future__ import annotations

import numpy as np

from llmtrace.dataflow.forms import Selected
from llmtrace.dataflow.identify.mask import HIDDEN
from llmtrace.dataflow.locating.anatomy_attention import Core
from llmtrace.dataflow.reading.heads import ReadHeads
from llmtrace.dataflow.reading.reader import Reader, Unreadable
from llmtrace.schema.sites import Array


def read_selected(reader: Reader, core: Core, q: ReadHeads, k: ReadHeads) -> Selected | None:
    """How the array says that a key is seen; None where positions alone decide. Raises `Unreadable`."""
    if not core.selects:
        return None
    shape = reader.probe[core.selects].shape
    if shape[-2:] != (reader.tokens, reader.tokens) or reader.probe[core.selects].size != reader.tokens**2:
        raise Unreadable("heads see keys that are chosen for each head, or not for each query")
    seen = [number for number in np.unique(reader.probe[core.selects]) if _sees(reader, core, q, k, number)]
    if len(seen) != 1:
        raise Unreadable("which keys a query sees is chosen in no way that is known")
    return Selected(float(seen[0]))


def all_seen(reader: Reader, core: Core, form: Selected | None, tokens: int) -> dict[str, Array]:
    """The array for a prompt in which every key is seen."""
    return {} if form is None else {core.selects: _filled(reader, core, form.seen, tokens)}


def unmasked(reader: Reader, core: Core, tokens: int) -> dict[str, Array]:
    """What masks scores for a prompt in which every key is seen that comes no later, and nothing is added."""
    if not core.masks:
        return {}
    value = reader.probe[core.masks]
    hidden = np.triu(np.full((tokens, tokens), np.finfo(value.dtype).min, value.dtype), 1)
    return {core.masks: np.ascontiguousarray(np.broadcast_to(hidden, (*value.shape[:-2], tokens, tokens)))}


def _filled(reader: Reader, core: Core, number: float, tokens: int) -> Array:
    value = reader.probe[core.selects]
    return np.full((*value.shape[:-2], tokens, tokens), number, value.dtype)


def _sees(reader: Reader, core: Core, q: ReadHeads, k: ReadHeads, number: float) -> bool:
    """Whether queries see all that comes before them where the array is filled with a number."""
    tokens = reader.tokens
    blank = {
        way.turned: way.form.native(np.zeros((tokens, way.form.heads, way.form.width))).astype(
            reader.probe[way.turned].dtype
        )
        for way in (q, k)
    }
    given = {**blank, core.selects: _filled(reader, core, number, tokens), **unmasked(reader, core, tokens)}
    scores = reader.pieces.run(given, (core.scores,), tokens)[core.scores].reshape(-1, tokens, tokens)
    return bool((scores[:, np.tri(tokens, dtype=bool)] > HIDDEN).all())
