"""Attention: its heads, what they are scored by, and what becomes of the mixture."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from attrs import evolve, frozen

from llmtrace.dataflow.constants import bias, matrix
from llmtrace.dataflow.forms import Form, Pattern, Rows, Scores, Selected
from llmtrace.dataflow.identify.kernel import FoundKernel, find_kernel
from llmtrace.dataflow.identify.measured import Unfit
from llmtrace.dataflow.locating.anatomy_attention import AttentionCell
from llmtrace.dataflow.reading.far import far_window
from llmtrace.dataflow.reading.fused import ROOTS, fused_kernel, fused_sinks, fused_ways, meant
from llmtrace.dataflow.reading.gates import read_mixture
from llmtrace.dataflow.reading.heads import ReadHeads, read_heads
from llmtrace.dataflow.reading.latent import ReadLatents, read_latents
from llmtrace.dataflow.reading.met import read_met
from llmtrace.dataflow.reading.norms import Weights
from llmtrace.dataflow.reading.reader import Reader, Unreadable
from llmtrace.dataflow.reading.selected import all_seen, read_selected, unmasked
from llmtrace.dataflow.reading.sinks import read_sinks
from llmtrace.dataflow.reading.turns import alike, tables_of
from llmtrace.dataflow.segments import Line
from llmtrace.errors import BackendError
from llmtrace.schema.sites import Array
from llmtrace.spec import Attention, Norm

LENGTHS = (1100, 512, 256, 128, 64, 32, 16)
"""Tokens at which a mask is read, the first that the graph takes: the longest holds the windows of small models, and scores of it fit into
memory.
"""


@frozen(eq=False)
class ReadAttention:
    """The record, where its signals are, and what reads its weights."""

    module: Attention
    why: Mapping[str, str]
    """Name of a signal from which on nothing more is known, and why: `rot_q` for how q, k and v are made, `z_post` for what becomes of z."""
    places: Mapping[str, tuple[str, Form]]
    """Name of a signal (`rot_q`) to the value that holds it."""
    weights: Weights


def read_attention(reader: Reader, cell: AttentionCell) -> ReadAttention:
    """What an attention branch is. Raises `Unreadable`."""
    if cell.core.fused:
        ways = fused_ways(reader, cell)
        return _assembled(reader, cell, ways, fused_kernel(reader, cell, ways), None)
    if cell.ways:
        try:
            ways = {name: read_heads(reader, name, way, _width(reader, cell, name)) for name, way in cell.ways.items()}
            return _explicit(reader, cell, ways)
        except (Unreadable, BackendError) as error:
            cell = evolve(cell, q=None, k=None, v=None, why_heads=str(error))
    if cell.latent is not None:
        try:
            latents = read_latents(reader, cell, _width(reader, cell, "q"), _width(reader, cell, "v"))
            return _explicit(reader, cell, latents.ways, latents)
        except (Unreadable, BackendError) as error:
            cell = evolve(cell, latent=None, why_heads=str(error))
    try:
        ways = {met.name: read_met(reader, met, _width(reader, cell, met.name)) for met in cell.met}
        return _explicit(reader, cell, ways)
    except Unreadable as error:
        why = cell.why_heads
        raise Unreadable(why if str(error) == why else f"{why}; and {error}") from None


def _explicit(
    reader: Reader, cell: AttentionCell, ways: Mapping[str, ReadHeads], latents: ReadLatents | None = None
) -> ReadAttention:
    selected = read_selected(reader, cell.core, ways["q"], ways["k"])
    return _assembled(reader, cell, ways, _kernel(reader, cell, ways, selected), selected, latents)


def _width(reader: Reader, cell: AttentionCell, name: str) -> int:
    """Channels of a head."""
    q, _, v = cell.met
    return int(reader.probe[(v if name == "v" else q).meets].shape[-1])


def _kernel(
    reader: Reader, cell: AttentionCell, ways: Mapping[str, ReadHeads], selected: Selected | None
) -> FoundKernel:
    """How scores follow from q and k."""
    q, k, core = ways["q"], ways["k"], cell.core
    firsts = [q.turned, k.turned, *filter(None, (core.masks, core.selects))]

    def piece(x: Array, y: Array) -> Array:
        given = {
            way.turned: way.form.native(each).astype(reader.probe[way.turned].dtype) for way, each in ((q, x), (k, y))
        }
        given |= all_seen(reader, core, selected, len(x)) | unmasked(reader, core, len(x))
        scores = reader.pieces.run(given, (core.scores,), len(x))[core.scores]
        with np.errstate(over="ignore"):  # what hides a key may be the least number of float64
            return scores.reshape(q.heads, len(x), -1).astype(np.float32)

    vertices = list(reader.flow.between(q.turned, core.scores))
    found = reader.once("kernel", firsts, core.scores, lambda: reader.longest((*LENGTHS, reader.tokens), lambda longest: find_kernel(
        piece, q.heads, k.heads, q.form.width, longest=longest, candidates=[*ROOTS, *map(meant, reader.numbers(vertices))],
        unit=reader.unit(q.turned, k.turned, core.scores),
    )), q.form.order, k.form.order, k.form.repeat)  # fmt: skip
    if isinstance(found, Unfit):
        raise Unreadable(f"its scores follow from q and k in no way that is known, because {found.why}")
    if found.window is None:
        found = evolve(found, window=far_window(reader, tables_of(reader, vertices)))
    if not found.grouped(k.heads):
        raise Unreadable(f"its heads read the keys {list(found.reads)}, not side by side")
    return found


def _assembled(
    reader: Reader,
    cell: AttentionCell,
    ways: Mapping[str, ReadHeads],
    kernel: FoundKernel,
    selected: Selected | None,
    latents: ReadLatents | None = None,
) -> ReadAttention:
    q, k, v = ways["q"], ways["k"], ways["v"]
    if k.heads != v.heads:
        raise Unreadable(f"it has {k.heads} heads of keys and {v.heads} of values")
    if not alike(q.rotary, k.rotary):
        raise Unreadable("queries and keys are turned by different angles")
    if (q.clip, q.clip) != (k.clip, v.clip):
        raise Unreadable("q, k and v are clipped at different bounds")
    out = cell.tail.line
    places: dict[str, tuple[str, Form]] = {**q.places, **k.places, **v.places}
    mixture = read_mixture(reader, cell, q.heads, v.form.width)
    places |= {**mixture.places, "out": (out.makes, Rows())}
    weights = {**q.weights, **k.weights, **v.weights, **mixture.weights}
    weights["W_O"] = matrix(out, reader.constants).then(lambda array: array.reshape(q.heads, v.form.width, -1))
    if out.bias:
        weights["b_O"] = bias(out, reader.constants)
    if cell.core.fused:
        read = fused_sinks(reader, cell.core.vertex)
        sinks = read is not None
        if read is not None:
            weights["sinks"] = read
    else:
        places["pattern"] = (cell.core.pattern, Pattern(q.heads))
        if kernel.origin == "query" or not kernel.slopes:
            places["scores"] = (cell.core.scores, Scores(q.heads))
        if cell.core.masks:
            if reader.probe[cell.core.masks].size != q.heads * reader.tokens**2:
                raise Unreadable("what masks its scores is not one number for each of them")
            places["mask"] = (cell.core.masks, Scores(q.heads))
        if selected is not None:
            places["selected"] = (cell.core.selects, selected)
        sinks = read_sinks(reader, cell, q.heads, weights)
    lines: dict[str, Line] = {**{name.upper(): way.line for name, way in cell.ways.items()}, "O": out}
    if latents is not None and cell.latent is not None:
        places |= latents.places
        weights |= latents.weights
        lines["Q"] = cell.latent.q_line
    order = [letter for letter in "QKVO" if letter in lines]
    module = Attention(
        heads=q.heads, kv_heads=k.heads, d_head=q.form.width, d_value=v.form.width, scale=kernel.scale * q.lead * k.lead,
        rotary=q.rotary, q_norm=_norm(q), k_norm=_norm(k), v_norm=_v_norm(v), norm_after_rotary=cell.q is not None and cell.q.late, clip=q.clip, softcap=kernel.softcap,
        window=kernel.window, slopes=kernel.slopes, sinks=sinks, sinks_after=bool(cell.kept), masked=bool(cell.core.masks), mixed=not cell.why_mixture, z_norm=mixture.norm, gate=mixture.gate,
        biases="".join(letter for letter in order if lines[letter].bias), selective=selected is not None,
        projected=bool(cell.ways) or latents is not None, q_latent=latents.q if latents else None, kv_latent=latents.kv if latents else None,
        shared=latents.shared if latents else 0,
    )  # fmt: skip
    why = {} if module.projected else {"rot_q": cell.why_heads}
    return ReadAttention(module, why | ({"z_post": cell.why_mixture} if cell.why_mixture else {}), places, weights)


def _norm(way: ReadHeads) -> Norm | None:
    return None if way.norm is None else way.norm.norm


def _v_norm(v: ReadHeads) -> Norm | None:
    """The norm of v, which has no weights in the equations."""
    if v.rotary is not None:
        raise Unreadable("its values are turned by their positions")
    if v.norm is None:
        return None
    if any((source.read() != (name == "w")).any() for name, source in v.norm.weights.items()):
        raise Unreadable("the norm of its values has weights")
    return evolve(v.norm.norm, over=v.norm.norm.over.replace("d_head", "d_value"), weight=False, bias=False)
