"""Attention that one vertex does: its attributes say what an explicit graph shows. What they claim is held to the equations like all else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import evolve

from llmtrace.dataflow.constants import Source, bias, matrix
from llmtrace.dataflow.forms import Heads, Part
from llmtrace.dataflow.graph import Vertex
from llmtrace.dataflow.identify.decimals import decimal
from llmtrace.dataflow.identify.kernel import FoundKernel
from llmtrace.dataflow.identify.mask import FoundMask, find_mask
from llmtrace.dataflow.identify.measured import Unfit
from llmtrace.dataflow.identify.phases import pairs
from llmtrace.dataflow.locating.anatomy_attention import AttentionCell
from llmtrace.dataflow.reading.far import far_window
from llmtrace.dataflow.reading.heads import ReadHeads, by_head, read_heads
from llmtrace.dataflow.reading.reader import Reader, Unreadable
from llmtrace.dataflow.reading.turns import find_switch, read_rotary
from llmtrace.dataflow.segments import Line
from llmtrace.schema.sites import Array
from llmtrace.spec import Rotary

COS, SIN = 7, 8
"""Where GroupQueryAttention reads its tables."""
GQA_BIAS, GQA_SINKS = 10, 11
"""Where GroupQueryAttention reads what is added to its scores, and the logits of sinks; norms and scales after that are not known here."""
MHA_BIAS, MHA_PADDING = 3, 4
ROOTS = tuple(number**-0.5 for number in range(1, 1025))
"""What scores are usually multiplied by: a width to the power of -1/2, whatever width it is."""


def meant(number: float) -> float:
    """What a graph's float32 stands for: a root, where it is one's float32."""
    return next((root for root in ROOTS if float(np.float32(root)) == number), decimal(number))


def fused_ways(reader: Reader, cell: AttentionCell) -> dict[str, ReadHeads]:
    """The ways of q, k and v into a fused vertex. Raises `Unreadable`."""
    vertex = cell.core.vertex
    heads, kv_heads = _counts(reader, vertex)
    if not cell.ways:
        raise Unreadable(cell.why_heads)
    if vertex.reading(1):
        sizes = {name: reader.probe[way.meets].size // reader.tokens for name, way in cell.ways.items()}
        ways = {
            name: read_heads(reader, name, way, sizes[name] // (heads if name == "q" else kv_heads))
            for name, way in cell.ways.items()
        }
    else:
        ways = _packed(reader, cell, heads, kv_heads)
    if not vertex.attributes.get("do_rotary"):
        return ways
    width = ways["q"].form.width
    tables = (vertex.reading(COS), vertex.reading(SIN), vertex.attributes.get("rotary_interleaved"), width)
    rotary = reader.known(tables, lambda: _rotary(reader, vertex, width))
    hidden = {
        name: evolve(way, rotary=rotary, places=_without(way, f"rot_{name}"))
        for name, way in ways.items()
        if name != "v"
    }
    return ways | hidden


def _without(way: ReadHeads, site: str) -> dict[str, Any]:
    return {name: place for name, place in way.places.items() if name != site}


def _counts(reader: Reader, vertex: Vertex) -> tuple[int, int]:
    attributes = vertex.attributes
    if vertex.op == "GroupQueryAttention":
        return int(attributes["num_heads"]), int(attributes["kv_num_heads"])
    if vertex.op == "MultiHeadAttention":
        return int(attributes["num_heads"]), int(attributes["num_heads"])
    if vertex.domain == "" and vertex.op == "Attention":
        if "q_num_heads" in attributes:
            return int(attributes["q_num_heads"]), int(attributes["kv_num_heads"])
        return reader.probe[vertex.reads[0]].shape[1], reader.probe[vertex.reads[1]].shape[1]
    raise Unreadable(
        f"{vertex.domain}.{vertex.op} turns q and k itself, or its matrix is computed, which is not read yet"
    )


def _packed(reader: Reader, cell: AttentionCell, heads: int, kv_heads: int) -> dict[str, ReadHeads]:
    """q, k and v side by side in what one line makes."""
    way = cell.ways["q"]
    line = way.line
    total = reader.probe[line.makes].size // reader.tokens
    width, rest = divmod(total, heads + 2 * kv_heads)
    if rest or way.norm or way.turn or way.begins != way.meets:
        raise Unreadable("q, k and v are packed in one value, and more is done to it than to split it")
    found: dict[str, ReadHeads] = {}
    start = 0
    for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
        columns = (start + np.arange(count * width)).reshape(count, width)
        found[name] = _columns(reader, name, line, columns)
        start += count * width
    return found


def _columns(reader: Reader, name: str, line: Line, columns: Array) -> ReadHeads:
    letter = name.upper()
    weights = {f"W_{letter}": by_head(matrix(line, reader.constants), columns)}
    if line.bias:
        weights[f"b_{letter}"] = bias(line, reader.constants).then(lambda array: array[columns])
    places = {name: (line.makes, Part(columns))} | ({} if name == "v" else {f"rot_{name}": (line.makes, Part(columns))})
    form = Heads(("token", "head", "d_head"), *columns.shape)
    return ReadHeads(name, columns, line.makes, form, 1.0, None, None, None, places, weights)


def _rotary(reader: Reader, vertex: Vertex, width: int) -> Rotary | None:
    """The rotary embedding of a vertex's tables of cosines and sines [position pair]."""
    names = (vertex.reading(COS), vertex.reading(SIN))
    fixed = all(name in reader.constants for name in names)
    interleaved = bool(vertex.attributes.get("rotary_interleaved"))

    def run(length: int) -> tuple[Array, Array]:
        made = {name: reader.constants[name] for name in names} if fixed else reader.pieces.run({}, names, length)
        cos, sin = (np.asarray(made[name], np.float64)[:length, None] for name in names)
        q = np.random.default_rng(0).normal(size=(len(cos), 1, width))
        first, second = pairs(2 * cos.shape[-1], "interleaved" if interleaved else "half")
        turned = q.copy()
        turned[..., first] = q[..., first] * cos - q[..., second] * sin
        turned[..., second] = q[..., second] * cos + q[..., first] * sin
        return q.astype(np.float32), turned.astype(np.float32)

    switch = None if fixed else find_switch(reader, names, lambda _: {})
    return read_rotary(reader, run, switch, reader.unit())


def fused_kernel(reader: Reader, cell: AttentionCell, ways: Mapping[str, ReadHeads]) -> FoundKernel:
    """How a fused vertex scores, by its attributes and the mask that it is given."""
    vertex, q, k = cell.core.vertex, ways["q"], ways["k"]
    attributes = vertex.attributes
    if vertex.op == "GroupQueryAttention" and (
        any(vertex.reads[GQA_SINKS + 1 :]) or int(attributes.get("smooth_softmax", 0)) > 0
    ):
        raise Unreadable("its vertex is given norms or a smooth softmax, which is not read yet")
    if vertex.op == "MultiHeadAttention" and vertex.reading(MHA_BIAS):
        raise Unreadable("its vertex adds a bias of unequal parts itself, which is not read yet")
    scale = float(attributes.get("scale") or q.form.width**-0.5)
    scale = meant(scale)
    softcap = decimal(float(attributes.get("softcap") or 0)) or None
    mask = _mask(reader, vertex, q.heads)
    reads = tuple(head * k.heads // q.heads for head in range(q.heads))
    return FoundKernel(scale, softcap, mask.window, mask.slopes, mask.origin, mask.constant, reads, reader.tokens)


def fused_sinks(reader: Reader, vertex: Vertex) -> Source | None:
    """The logits of a fused vertex's sinks, where it has some."""
    name = vertex.reading(GQA_SINKS) if vertex.op == "GroupQueryAttention" else ""
    if not name:
        return None
    if name not in reader.constants:
        raise Unreadable("the logits of its sinks are computed")
    return Source(name, lambda: np.asarray(reader.constants[name]).reshape(-1))


def _mask(reader: Reader, vertex: Vertex, heads: int) -> FoundMask:
    """Which keys are seen: by attribute, or by what is added."""
    attributes = vertex.attributes
    grouped = vertex.op == "GroupQueryAttention"
    window = int(attributes.get("local_window_size", -1)) if grouped else -1
    name = vertex.reading({"Attention": 3, "MultiHeadAttention": 5}.get(vertex.op, GQA_BIAS))
    padding = vertex.reading(MHA_PADDING) if vertex.op == "MultiHeadAttention" else ""
    if grouped and not name:
        return FoundMask(window if window > 0 else None, (), "query", np.zeros((heads, reader.tokens)))
    length = min(reader.context, 1100)
    added: Array = np.zeros((1, length, length), np.float32)
    if name:
        given = reader.pieces.run({}, (name,), length)[name]
        given = np.where(given, 0.0, -np.inf) if given.dtype == bool else given.astype(np.float64)
        added = given.reshape(-1, *given.shape[-2:])
    if padding:
        added = added + _padding(reader, padding, length)
    if grouped or attributes.get("is_causal") or attributes.get("unidirectional"):
        added = added + np.where(np.tri(length, dtype=bool), 0.0, -np.inf)
    if window > 0:
        added = added + np.where(np.tri(length, k=-window, dtype=bool), -np.inf, 0.0)
    found = find_mask(np.broadcast_to(added, (heads, length, length)), reader.unit())
    if isinstance(found, Unfit):
        raise Unreadable(f"its mask is none that is known, because {found.why}")
    return found if found.window is not None or not name else evolve(found, window=far_window(reader, (name,)))


def _padding(reader: Reader, name: str, length: int) -> Array:
    """What a mask of padding does to scores, [query, key] or less: it says how many keys count, or of each key, perhaps by query, whether it does."""
    given = np.asarray(reader.pieces.run({}, (name,), length)[name])
    counts = np.arange(length) < given[0] if given.ndim == 1 else given.reshape(-1, length) > 0
    return np.where(counts, 0.0, -np.inf)
