"""Queries, keys and values that are made of latents: which columns of which line each channel of a head is, and how heads are turned.

At the first position nothing is turned, so that what stands there shows where each channel comes from; a channel that is turned may be
multiplied besides, which two runs tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from attrs import evolve, frozen

from llmtrace.dataflow.constants import Source, bias, matrix
from llmtrace.dataflow.forms import Form, Heads, Part, Rows
from llmtrace.dataflow.identify.maps import find_map
from llmtrace.dataflow.identify.measured import Unfit
from llmtrace.dataflow.locating.anatomy_attention import AttentionCell, LatentCell, Met
from llmtrace.dataflow.reading.heads import ReadHeads, by_head
from llmtrace.dataflow.reading.met import read_met
from llmtrace.dataflow.reading.norms import read_norm
from llmtrace.dataflow.reading.reader import Reader, Unreadable
from llmtrace.dataflow.reading.turns import find_switch, read_rotary, tables_of
from llmtrace.schema.sites import Array
from llmtrace.spec import Latent, Rotary


@frozen(eq=False)
class ReadLatents:
    """The three ways, the latents that they come from, and the channels of keys that all heads share."""

    ways: Mapping[str, ReadHeads]
    q: Latent | None
    kv: Latent
    shared: int
    places: Mapping[str, tuple[str, Form]]
    weights: Mapping[str, Source]


def read_latents(reader: Reader, cell: AttentionCell, width: int, value: int) -> ReadLatents:
    """The ways of an attention that is made of latents; `width` and `value` are channels of a query and of a value. Raises `Unreadable`."""
    found = cell.latent
    if found is None:
        raise Unreadable(cell.why_heads)
    places: dict[str, tuple[str, Form]] = {}
    weights: dict[str, Source] = {}
    met = {each.name: read_met(reader, each, value if each.name == "v" else width) for each in cell.met}
    at = {each.name: each for each in cell.met}
    up, down = found.kv.up.makes, found.kv.line.makes

    (q_columns,) = _sources(reader, [found.q_line.makes], at["q"], met["q"].form)
    k_own, k_shared = _sources(reader, [up, down], at["k"], met["k"].form)
    (v_columns,) = _sources(reader, [up], at["v"], met["v"].form)
    shared = _shared(k_own, k_shared)
    own = width - shared
    if (q_columns < 0).any() or (v_columns < 0).any():
        raise Unreadable("some channels of its heads come from nowhere")
    q_latent = _latent(reader, found.q, "q", places, weights) if found.q is not None else None
    kv_latent = _latent(reader, found.kv, "kv", places, weights)
    places["q"] = (found.q_line.makes, Part(q_columns))
    weights["W_Q"] = by_head(matrix(found.q_line, reader.constants), q_columns)
    weights["W_K"] = by_head(matrix(found.kv.up, reader.constants), k_own[:, :own])
    weights["W_V"] = by_head(matrix(found.kv.up, reader.constants), v_columns)
    if found.q_line.bias:
        weights["b_Q"] = bias(found.q_line, reader.constants).then(lambda array: array[q_columns])
    if shared:
        columns = k_shared[0, own:]
        weights["W_KR"] = matrix(found.kv.line, reader.constants).then(lambda array: array[:, columns])
        if found.kv.line.bias:
            weights["b_KR"] = bias(found.kv.line, reader.constants).then(lambda array: array[columns])
    turns = [
        _rotary(reader, at["q"], met["q"].form, {found.q_line.makes: q_columns}, 0),
        _rotary(reader, at["k"], met["k"].form, {up: k_own, down: k_shared}, shared),
    ]
    ways = {
        name: evolve(way, rotary=turn, columns=columns)
        for (name, way), turn, columns in zip(met.items(), (*turns, None), (q_columns, k_own, v_columns), strict=True)
    }
    return ReadLatents(ways, q_latent, kv_latent, shared, places, weights)


def _sources(reader: Reader, firsts: list[str], met: Met, form: Heads) -> list[Array]:
    """For each of some values which of its columns every channel of a head is, [head channel]; -1 where it is none of them."""
    sizes = [reader.probe[name].size // reader.tokens for name in firsts]
    starts = np.cumsum([0, *sizes])

    def at_start(numbers: Array) -> Array:
        given = {
            name: reader.native(name, np.tile(numbers[start : start + size].astype(np.float32), (reader.tokens, 1)))
            for name, start, size in zip(firsts, starts, sizes, strict=False)
        }
        made = reader.pieces.run(given, (met.heads,), reader.tokens)[met.heads]
        return np.asarray(form.natural(made, reader.tokens)[0], np.float64)

    total = int(starts[-1])
    gain, counted = at_start(np.ones(total)), at_start(np.arange(1, total + 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        index = counted / gain - 1
    if not (np.abs(index - np.round(index)) < 0.1).all() or (np.round(index) < 0).any():
        raise Unreadable("what stands before its heads is not re-arranged alone at the first position")
    whole = np.round(index).astype(np.int64)
    parts = []
    for start, size in zip(starts, sizes, strict=False):
        inside = (whole >= start) & (whole < start + size)
        parts.append(np.where(inside, whole - start, -1))
    return parts


def _shared(own: Array, shared: Array) -> int:
    """How many trailing channels of keys all heads share. Raises `Unreadable` where they are no trailing ones."""
    here = shared >= 0
    count = int(here[0].sum())
    if (here != here[0]).any() or here[0, : here.shape[1] - count].any() or (shared != shared[0]).any():
        raise Unreadable("the channels of keys that its heads share are not the last ones of each")
    if (own[:, : own.shape[1] - count] < 0).any():
        raise Unreadable("some channels of its keys come from nowhere")
    return count


def _rotary(reader: Reader, met: Met, form: Heads, firsts: Mapping[str, Array], shared: int) -> Rotary | None:
    """What turns heads, whose channels stand in some values; `shared` trailing ones are the same in all heads."""
    columns = [each.tobytes() for each in firsts.values()]
    return reader.once(
        "latent",
        list(firsts),
        met.heads,
        lambda: _turned(reader, met, form, firsts, shared),
        form.order,
        shared,
        *columns,
    )


def _turned(reader: Reader, met: Met, form: Heads, firsts: Mapping[str, Array], shared: int) -> Rotary | None:
    def heads(x: Array) -> Array:
        """From channels as they are at the first position to the heads that meet, both [token head channel]."""
        given = {}
        for name, columns in firsts.items():
            rows = np.zeros((len(x), reader.probe[name].size // reader.tokens), np.float32)
            rows[:, columns[columns >= 0]] = x[:, columns >= 0]
            given[name] = reader.native(name, rows)
        return form.natural(reader.pieces.run(given, (met.heads,), len(x))[met.heads], len(x)).astype(np.float32)

    def drawn(length: int) -> Array:
        x = np.random.default_rng(0).normal(size=(length, form.heads, form.width)).astype(np.float16).astype(np.float32)
        x[..., form.width - shared :] = x[:, :1, form.width - shared :]
        return x

    few = drawn(reader.tokens)
    (changed,) = np.nonzero((np.abs(heads(few) - few) > 8 * reader.unit(met.heads) * np.abs(few)).any((0, 1)))
    if not len(changed):
        return None
    start = int(changed[0])

    def run(length: int) -> tuple[Array, Array]:
        x = drawn(length)
        return x[..., start:], heads(x)[..., start:]

    def given(length: int) -> dict[str, Array]:
        return {
            name: reader.native(name, np.zeros((length, reader.probe[name].size // reader.tokens), np.float32))
            for name in firsts
        }

    tables = tables_of(reader, [vertex for name in firsts for vertex in reader.flow.between(name, met.heads)])
    switch = find_switch(reader, tables, given) if tables else None
    found = read_rotary(reader, run, switch, reader.unit(met.heads))
    return None if found is None else evolve(found, start=start)


def _latent(
    reader: Reader, cell: LatentCell, name: str, places: dict[str, tuple[str, Form]], weights: dict[str, Source]
) -> Latent:
    """One latent, and where it and its weights are."""
    size = reader.probe[cell.line.makes].size // reader.tokens
    shown = find_map(partial(_moved, reader, cell), reader.tokens, size, unit=reader.unit(cell.line.makes, cell.first))
    if isinstance(shown, Unfit):
        raise Unreadable(f"its latent is no part of what a line makes, because {shown.why}")
    columns = shown.column.reshape(reader.tokens, -1)[0]
    axis = f"{name}_rank"
    places[f"{name}_latent"] = (cell.line.makes, Part(columns))
    weights[f"{name}_latent.W"] = matrix(cell.line, reader.constants).then(lambda array: array[:, columns])
    if cell.line.bias:
        weights[f"{name}_latent.b"] = bias(cell.line, reader.constants).then(lambda array: array[columns])
    norm = None
    if cell.norm is not None:
        read = read_norm(reader, cell.norm, len(columns))
        norm = evolve(read.norm, over=axis)
        places[f"{name}_latent_norm.out"] = (cell.norm.last, Rows())
        weights |= {f"{name}_latent_norm.{part}": source for part, source in read.weights.items()}
    return Latent(axis, len(columns), norm, bool(cell.line.bias))


def _moved(reader: Reader, cell: LatentCell, x: Array) -> Array:
    return reader.onward(cell.line.makes, reader.native(cell.line.makes, x), cell.first, len(x))
