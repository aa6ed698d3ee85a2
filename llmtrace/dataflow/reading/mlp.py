"""Plain and gated MLPs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

import numpy as np
from attrs import evolve, frozen

from llmtrace.dataflow.constants import Source, bias, matrix
from llmtrace.dataflow.forms import Form, Part, Rows
from llmtrace.dataflow.identify.activation import find_activation
from llmtrace.dataflow.identify.gated import FoundGate, find_gated
from llmtrace.dataflow.identify.measured import Unfit
from llmtrace.dataflow.locating.anatomy_mlp import MlpCell
from llmtrace.dataflow.reading.norms import Weights, read_norm
from llmtrace.dataflow.reading.reader import Reader, Unreadable
from llmtrace.dataflow.segments import Line, Segment
from llmtrace.schema.sites import Array
from llmtrace.spec import GatedMlp, Mlp


@frozen(eq=False)
class ReadMlp:
    """The record, where its signals are, and what reads its weights."""

    module: Mlp | GatedMlp
    places: dict[str, tuple[str, Form]]
    """`pre`, `pre_linear`, `post`, `out`."""
    weights: Weights


def read_mlp(reader: Reader, cell: MlpCell) -> ReadMlp:
    """What an MLP is. Raises `Unreadable`."""
    width = reader.probe[cell.post].size // reader.tokens
    down = cell.tail.line
    places: dict[str, tuple[str, Form]] = {"post": (down.reads, Rows()), "out": (down.makes, Rows())}
    weights: dict[str, Source] = {"W_out": matrix(down, reader.constants)}
    biases = [_bias(reader, weights, "b_out", down)]
    if len(cell.halves) == 1:
        (one,) = cell.lines
        if cell.inner_norm is not None:
            raise Unreadable("a norm stands before its last matrix, and it is not gated")
        if (made := reader.probe[one.makes].size // reader.tokens) != width:
            raise Unreadable(
                f"its first matrix makes {made} channels and its last reads {width}, which no activation does"
            )
        found = reader.once("activation", [one.makes], cell.post, lambda: find_activation(
            reader.rows(one.makes, cell.post), width, gains=True, unit=reader.unit(one.makes, cell.post)
        ))  # fmt: skip
        if isinstance(found, Unfit):
            raise Unreadable(f"its activation is none that is known, because {found.why}")
        places["pre"] = (one.makes, Rows())
        weights["W_in"] = matrix(one, reader.constants)
        if found.numbers is not None:
            weights |= _numbers(reader, one.makes, cell.post, found.numbers)
        if (
            found.gain != 1
        ):  # what enters the last matrix is a multiple of what it is in the model: it is left to the equations
            del places["post"]
            weights["W_out"] = weights["W_out"].then(partial(np.multiply, found.gain))
        biases.append(_bias(reader, weights, "b_in", one))
        return ReadMlp(Mlp(width, found.act, _all(biases)), places, weights)
    joint, halves = read_halves(reader, tuple(one.makes for one in cell.lines), cell.halves, cell.post)
    for name, suffix, (place, columns) in zip(("pre", "pre_linear"), ("gate", "in"), halves, strict=True):
        one = cell.lines[place]
        places[name] = (one.makes, Rows() if columns is None else Part(columns))
        weights[f"W_{suffix}"] = _some(matrix(one, reader.constants), columns)
        biases.append(_bias(reader, weights, f"b_{suffix}", one, columns))
    inner = None
    if cell.inner_norm is not None:
        normed = read_norm(reader, cell.inner_norm, width)
        inner = evolve(normed.norm, over="d_mlp")
        weights |= {f"inner_norm.{name}": read for name, read in normed.weights.items()}
    return ReadMlp(GatedMlp(width, joint.act, _all(biases), joint.clamp, inner), places, weights)


def _numbers(reader: Reader, first: str, last: str, measured: Sequence[float]) -> dict[str, Source]:
    """Where the numbers of an xIELU stand."""
    way = Segment("point", first, last, tuple(reader.flow.between(first, last)))
    found: dict[str, Source] = {}
    for name, number in zip(("alpha_p", "alpha_n", "beta", "eps"), measured, strict=True):
        source = reader.number(way, number)
        if source is None:
            raise Unreadable("the numbers of its xIELU stand nowhere in the graph as they work")
        found[name] = source
    return found


Half: TypeAlias = tuple[int, Array | None]
"""Which of one or two lines makes a half, and which of its columns; None for all."""


def read_halves(reader: Reader, lines: Sequence[str], halves: Sequence[str], post: str) -> tuple[FoundGate, list[Half]]:
    """How what one or two `lines` make becomes `post`: the activation, and the halves, the gated one first. Raises `Unreadable`."""
    width, (first, second) = reader.probe[post].shape[-1], halves
    found = [_half(reader, lines, half, width) for half in halves]

    def piece(x: Array, y: Array) -> Array:
        given = {first: reader.native(first, x), second: reader.native(second, y)}
        return reader.pieces.run(given, (post,), len(x))[post].reshape(len(x), -1).astype(np.float32)

    joint = reader.once("gated", halves, post, lambda: find_gated(
        piece, width, candidates=reader.numbers(vertex for half in halves for vertex in reader.flow.between(half, post)),
        unit=reader.unit(*halves, post),
    ))  # fmt: skip
    if isinstance(joint, Unfit):
        raise Unreadable(f"its two halves are joined in no way that is known, because {joint.why}")
    return joint, found[::-1] if joint.swapped else found


def _half(reader: Reader, lines: Sequence[str], half: str, width: int) -> Half:
    if half in lines:
        return lines.index(half), None
    (one,) = lines
    ids = np.tile(np.arange(reader.probe[one].shape[-1], dtype=np.float32), (2, 1))
    columns = reader.rows(one, half)(ids)[0]
    if len(columns) != width or not np.array_equal(columns, np.rint(columns)):
        raise Unreadable("the halves of its first matrix cannot be told apart")
    return 0, columns.astype(np.intp)


def _some(source: Source, columns: Array | None) -> Source:
    """Some of the last axis."""
    return source if columns is None else source.then(lambda array: array[..., columns])


def _bias(reader: Reader, weights: dict[str, Source], name: str, one: Line, columns: Array | None = None) -> bool:
    """Put a line's bias among the weights; whether it has one."""
    if one.bias:
        weights[name] = _some(bias(one, reader.constants), columns)
    return bool(one.bias)


def _all(biases: list[bool]) -> bool:
    if any(biases) != all(biases):
        raise Unreadable("some of its matrices have a bias and others have none")
    return biases[0]
