"""Sinks: a learned logit of each head that takes part in the softmax, as a column that no token has."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from llmtrace.dataflow.constants import Source
from llmtrace.dataflow.graph import LENGTHS
from llmtrace.dataflow.identify.measured import Unfit
from llmtrace.dataflow.identify.softmaxed import find_softmax
from llmtrace.dataflow.locating.anatomy_attention import AttentionCell
from llmtrace.dataflow.reading.reader import Reader, Unreadable
from llmtrace.schema.sites import Array


def read_sinks(reader: Reader, cell: AttentionCell, heads: int, weights: dict[str, Source]) -> bool:
    """Whether a learned logit of each head takes part in the softmax; it is put among the weights. Raises `Unreadable`."""
    core = cell.core
    if core.vertex.reads[0] == core.scores and core.vertex.makes[0] == core.pattern and not cell.kept:
        return False  # a softmax of just these

    def piece(scores: Array) -> Array:
        shape = reader.probe[core.scores].shape
        native = scores.reshape(*shape[:-2], *scores.shape[-2:]).astype(reader.probe[core.scores].dtype)
        wanted = (core.pattern, *([cell.kept] if cell.kept else []))
        found = reader.pieces.run({core.scores: native}, wanted, scores.shape[-1])
        pattern = found[core.pattern].reshape(heads, *scores.shape[-2:]).astype(np.float32)
        return pattern * found[cell.kept].reshape(heads, -1, 1) if cell.kept else pattern

    found = find_softmax(piece, heads, unit=reader.unit(core.scores, core.pattern))
    if isinstance(found, Unfit):
        raise Unreadable(f"its pattern is no softmax of its scores, because {found.why}")
    if found.sinks is None:
        if cell.kept:
            raise Unreadable("what multiplies the mixture is not what sinks leave of it")
        return False
    for name in _constants(reader, core.scores, cell.kept or core.pattern):
        array = np.asarray(reader.constants[name])
        if array.size == heads and np.allclose(array.reshape(-1).astype(np.float64), found.sinks, atol=1e-3):
            weights["sinks"] = Source(name, partial(_flat, reader, name))
            return True
    raise Unreadable("the logits of its sinks stand nowhere in the graph as they work")


def _constants(reader: Reader, first: str, last: str) -> Iterator[str]:
    """The constants that take part in what lies between two values, spread to the prompt's length or not."""
    graph = reader.flow.graph
    seen: set[str] = set()
    waiting = [name for vertex in reader.flow.between(first, last) for name in vertex.reads if name not in reader.flow]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in graph.constants:
            yield name
        elif (vertex := graph.maker.get(name)) is not None and vertex.op not in LENGTHS:
            waiting += [each for each in vertex.reads if each and each not in reader.flow]


def _flat(reader: Reader, name: str) -> Array:
    return np.asarray(reader.constants[name]).reshape(-1)
