"""From tokens into the stream, and from the stream to the logits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from attrs import field, frozen

from llmtrace.dataflow.constants import Source, bias, matrix, table
from llmtrace.dataflow.forms import Form, Rows
from llmtrace.dataflow.identify.activation import find_activation
from llmtrace.dataflow.identify.capped import find_cap
from llmtrace.dataflow.identify.ends import find_factor, find_offset
from llmtrace.dataflow.identify.measured import Unfit
from llmtrace.dataflow.locating.anatomy import Anatomy, HeadCell
from llmtrace.dataflow.reading.norms import Weights, read_norm
from llmtrace.dataflow.reading.reader import Reader, Unreadable
from llmtrace.errors import BackendError, UnsupportedModelError
from llmtrace.spec import Embedding, Head, Norm, Positions, Unembedding


@frozen(eq=False)
class ReadEnds:
    """The records, and what reads their weights, by full name."""

    embed: Embedding
    positions: Positions | None
    ln_final: Norm
    unembed: Unembedding
    vocab: int
    weights: Weights
    head: Head | None = None
    places: Mapping[str, tuple[str, Form]] = field(factory=dict)
    """Where the head's signals are."""


def read_ends(reader: Reader, anatomy: Anatomy, width: int) -> ReadEnds:
    """Both ends of a decoder. Raises `UnsupportedModelError` for what the spec has no words for."""
    try:
        return _read(reader, anatomy, width)
    except (Unreadable, BackendError) as why:
        raise UnsupportedModelError(f"The ends of the residual stream cannot be read: {why}.") from why


def _read(reader: Reader, anatomy: Anatomy, width: int) -> ReadEnds:
    weights: dict[str, Source] = {"embed.W_E": table(anatomy.look_up, reader.constants)}
    embed = _embedding(reader, anatomy, width, weights)
    positions = _positions(reader, anatomy, weights) if anatomy.pos_embed else None
    if anatomy.ln_final is None:
        raise Unreadable("no norm stands before the unembedding")
    final = read_norm(reader, anatomy.ln_final, width)
    weights |= {f"ln_final.{name}": read for name, read in final.weights.items()}
    head = anatomy.head
    weights["unembed.W_U"] = matrix(head, reader.constants)
    if head.bias:
        weights["unembed.b_U"] = bias(head, reader.constants)
    vocab, predicted = len(reader.constants[anatomy.look_up.reads[0]]), reader.probe[head.makes].shape[-1]
    vertices = [vertex for segment in anatomy.after for vertex in segment.vertices]
    found = find_cap(
        reader.rows(head.makes, anatomy.logits), predicted, candidates=reader.numbers(vertices), unit=reader.unit(head.makes)
    ) if anatomy.after else None  # fmt: skip
    if isinstance(found, Unfit):
        raise Unreadable(f"what stands after the unembedding is neither a scale nor a cap, because {found.why}")
    scale, cap = (found.scale, found.softcap) if found else (1.0, None)
    scale *= _entering(reader, anatomy, width)
    unembed = Unembedding(
        scale,
        cap,
        bool(head.bias),
        predicted == vocab and _tied(reader, anatomy),
        vocab=None if predicted == vocab else predicted,
    )
    if anatomy.between is None:
        return ReadEnds(embed, positions, final.norm, unembed, vocab, weights)
    between, places = _head(reader, anatomy.between, width, weights)
    return ReadEnds(embed, positions, final.norm, unembed, vocab, weights, between, places)


def _head(
    reader: Reader, cell: HeadCell, width: int, weights: dict[str, Source]
) -> tuple[Head, Mapping[str, tuple[str, Form]]]:
    """What stands between the final norm and the unembedding."""
    if reader.probe[cell.line.makes].size != width * reader.tokens:
        raise Unreadable("the matrix before the unembedding makes something else than the width of the stream")
    found = find_activation(
        reader.rows(cell.line.makes, cell.post), width, unit=reader.unit(cell.line.makes, cell.post)
    )
    if isinstance(found, Unfit):
        raise Unreadable(f"the activation before the unembedding is none that is known, because {found.why}")
    places: dict[str, tuple[str, Form]] = {"head.pre": (cell.line.makes, Rows()), "head.post": (cell.post, Rows())}
    weights["head.W_in"] = matrix(cell.line, reader.constants)
    if cell.line.bias:
        weights["head.b_in"] = bias(cell.line, reader.constants)
    norm = None
    if cell.norm is not None:
        normed = read_norm(reader, cell.norm, width)
        norm = normed.norm
        places["head_norm.out"] = (cell.norm.last, Rows())
        weights |= {f"head_norm.{name}": read for name, read in normed.weights.items()}
    return Head(found.act, bool(cell.line.bias), norm), places


def _entering(reader: Reader, anatomy: Anatomy, width: int) -> float:
    """The factor of what the unembedding reads: one of the logits, where nothing is added to them."""
    if not anatomy.entering:
        return 1.0
    first, last = anatomy.entering[0].first, anatomy.entering[-1].last
    vertices = [vertex for one in anatomy.entering for vertex in one.vertices]
    found = find_factor(reader.rows(first, last), width, candidates=reader.numbers(vertices), unit=reader.unit(first))
    if isinstance(found, Unfit):
        raise Unreadable(f"what the unembedding reads is not multiplied by one number, because {found.why}")
    if anatomy.head.bias:
        raise Unreadable("what the unembedding reads is multiplied by a number, and a bias is added after it")
    return found


def _embedding(reader: Reader, anatomy: Anatomy, width: int, weights: dict[str, Source]) -> Embedding:
    last, norm = anatomy.row, None
    scales = [segment for segment in anatomy.before if segment.kind == "scale"]
    for segment in anatomy.before:
        if segment.kind == "norm":
            found = read_norm(reader, segment, width)
            norm = found.norm
            weights |= {f"embed.{name}": read for name, read in found.weights.items()}
        elif norm is not None:
            raise Unreadable("a factor stands after the norm of the embedding")
        else:
            last = segment.last
    scale = find_factor(
        reader.rows(anatomy.row, last), width,
        candidates=reader.numbers(vertex for one in scales for vertex in one.vertices),
        exact=(float(np.sqrt(width)),), unit=reader.unit(anatomy.row, last),
    ) if scales else 1.0  # fmt: skip
    if isinstance(scale, Unfit):
        raise Unreadable(f"the embedding is not scaled by one number, because {scale.why}")
    return Embedding(scale, norm)


def _positions(reader: Reader, anatomy: Anatomy, weights: dict[str, Source]) -> Positions:
    added = reader.probe[anatomy.pos_embed].reshape(reader.tokens, -1)
    name = anatomy.pos_embed
    while (vertex := reader.flow.graph.maker.get(name)) is not None and vertex.reads[
        0
    ] not in reader.flow.graph.constants:
        name = vertex.reads[0]
    if vertex is None:
        raise Unreadable("what positions add is no part of a table")
    constant = vertex.reads[0]
    rows = np.asarray(reader.constants[constant])
    rows = rows.reshape(-1, rows.shape[-1])
    offset = find_offset(rows, added, unit=reader.unit(anatomy.pos_embed))
    if isinstance(offset, Unfit):
        raise Unreadable(f"what positions add is no part of a table, because {offset.why}")
    weights["pos_embed.W_pos"] = Source(constant, lambda: np.asarray(reader.constants[constant]).reshape(rows.shape))
    return Positions(len(rows), offset)


def _tied(reader: Reader, anatomy: Anatomy) -> bool:
    """Whether the unembedding is the embedding's own table, transposed."""
    graph = reader.flow.graph
    return graph.root(anatomy.head.product.reading(1)) == graph.root(anatomy.look_up.reads[0])
