"""The way of q, k or v: which columns of its matrix are which head's, how heads lie in what follows, and what is done to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from attrs import frozen

from llmtrace.dataflow.constants import Source, bias, matrix
from llmtrace.dataflow.forms import Form, Heads, Part
from llmtrace.dataflow.identify.decimals import decimal
from llmtrace.dataflow.identify.ends import find_factor
from llmtrace.dataflow.identify.heads import HeadMap, Sharing, find_heads, shared
from llmtrace.dataflow.identify.maps import IndexMap, find_map
from llmtrace.dataflow.identify.measured import Unfit
from llmtrace.dataflow.locating.anatomy_attention import Projection
from llmtrace.dataflow.reading.norms import ReadNorm, Weights, read_head_norm
from llmtrace.dataflow.reading.reader import Reader, Unreadable
from llmtrace.dataflow.reading.turns import find_switch, read_rotary, tables_of
from llmtrace.dataflow.segments import Segment
from llmtrace.schema.sites import Array
from llmtrace.spec import Rotary


@frozen(eq=False)
class ReadHeads:
    """What was found on the way of q, k or v."""

    name: str
    """`q`, `k`, `v`."""
    columns: Array
    """[head, channel] of the distinct heads."""
    turned: str
    """The value of `rot_q`, `rot_k`, or of v as it is mixed."""
    form: Heads
    """How it lies there."""
    lead: float
    """What the projection is multiplied by before."""
    clip: float | None
    norm: ReadNorm | None
    rotary: Rotary | None
    places: Mapping[str, tuple[str, Form]]
    weights: Weights

    @property
    def heads(self) -> int:
        """Distinct heads."""
        return len(self.columns)


def read_heads(reader: Reader, name: str, way: Projection, width: int) -> ReadHeads:
    """Read one way; `width` is the number of channels a head. Raises `Unreadable`."""
    axis = "head" if name == "q" else "kv_head"
    lead = _lead(reader, way)
    first, clip = _clipped(reader, way)
    order = (way.turn, way.norm) if way.late else (way.norm, way.turn)
    stops = [one for one in (way.scaled, *order) if one is not None]
    factor = 1.0
    stop = stops[0].first if stops else way.turned
    columns, form = split_heads(reader, first, stop, width)
    norm = rotary = None
    before = ""
    for one in stops:
        form = moved_heads(reader, before, one.first, form) if before else form
        if one is way.scaled:
            factor = _factor(reader, one, form)
        elif one is way.norm:
            norm = read_head_norm(reader, one, over_heads(reader, one, form), form.heads, form.width, axis)
        else:
            found = partial(_rotary, reader, one, form)
            rotary = reader.once("rotary", [one.first], one.last, found, form.order, form.repeat)
        before = one.last
    places: dict[str, tuple[str, Form]] = {name: (way.line.makes, Part(columns))}
    if clip is not None:
        places[name] = (first, Part(columns))
    turned = stops[-1].last if stops else way.turned
    if name == "v" and stops:
        places[name] = (turned, form)
    if name != "v":
        places[f"rot_{name}"] = (turned, form) if stops else places[name]
        if norm is not None and not way.late and way.norm is not None:
            places[f"{name}_norm.out"] = (way.norm.last, split_heads(reader, first, way.norm.first, width)[1])
    letter = name.upper()
    weights = {f"W_{letter}": by_head(matrix(way.line, reader.constants), columns)}
    if way.line.bias:
        weights[f"b_{letter}"] = bias(way.line, reader.constants).then(lambda array: array[columns])
    if factor != 1.0:  # v has no factor in the equations: its weights do
        weights = {each: source.then(partial(np.multiply, np.float32(factor))) for each, source in weights.items()}
    if norm is not None and name != "v":  # a norm of values has none
        weights |= {f"{name}_norm.{part}": read for part, read in norm.weights.items()}
    return ReadHeads(name, columns, turned, form, lead, clip, norm, rotary, places, weights)


def by_head(source: Source, columns: Array) -> Source:
    """[in, out] as [head, in, channel]."""
    return source.then(lambda array: array[:, columns].transpose(1, 0, 2))


def _lead(reader: Reader, way: Projection) -> float:
    """What stands between a projection and its heads, as one number."""
    if way.begins == way.line.makes:
        return 1.0
    width = reader.probe[way.begins].size // reader.tokens
    found = find_factor(reader.rows(way.line.makes, way.begins), width, unit=reader.unit(way.begins))
    if isinstance(found, Unfit):
        raise Unreadable(f"a projection is not multiplied by one number, because {found.why}")
    return found


def _factor(reader: Reader, one: Segment, form: Heads) -> float:
    """The one number that values are multiplied by."""
    found = find_factor(
        lambda x: over_heads(reader, one, form)(x.reshape(len(x), form.heads, form.width)).reshape(len(x), -1),
        form.heads * form.width,
        candidates=reader.numbers(one.vertices),
        unit=reader.unit(one.last),
    )
    if isinstance(found, Unfit):
        raise Unreadable(f"values are not multiplied by one number, because {found.why}")
    return found


def _clipped(reader: Reader, way: Projection) -> tuple[str, float | None]:
    """After the clip, where there is one, and its bound."""
    if way.clip is None:
        return way.begins, None
    if reader.probe[way.clip.first].size != reader.probe[way.begins].size:
        raise Unreadable("a clip stands after heads are split")
    width = reader.probe[way.begins].size // reader.tokens
    found = reader.rows(way.clip.first, way.clip.last)(np.tile(np.array([[1e6], [-1e6]], np.float32), (1, width)))
    bound = float(found.max())
    if not (found[0] == bound).all() or not (found[1] == -bound).all() or bound == 1e6:
        raise Unreadable("what clips a projection has other bounds than one number and its negative")
    return way.clip.last, decimal(bound)


def split_heads(reader: Reader, first: str, last: str, width: int) -> tuple[Array, Heads]:
    """Which columns are each distinct head's, and how heads lie."""
    size = reader.probe[first].size // reader.tokens
    unit = reader.unit(first, last)

    def piece(x: Array) -> Array:
        return reader.onward(first, reader.native(first, x), last, len(x))

    found = partial(_mapped, reader, piece, size, width, unit)
    return reader.once("split", [first], last, found, width, unit)


def told_heads(
    reader: Reader, piece: Callable[[Array], Array], size: int, width: int, unit: float, done: str
) -> tuple[IndexMap, HeadMap, Sharing]:
    """Where a piece puts each of `size` columns a token, which of them are heads of `width` channels, and which heads are copies; `done` is what
    the piece does to heads. Raises `Unreadable`.
    """
    shown = find_map(piece, reader.tokens, size, unit=unit)
    if isinstance(shown, Unfit):
        raise Unreadable(f"heads are not {done} by re-arrangement alone, because {shown.why}")
    held = find_heads(shown, reader.tokens, width)
    if isinstance(held, Unfit):
        raise Unreadable(f"heads cannot be told, because {held.why}")
    sharing = shared(held.columns)
    if isinstance(sharing, Unfit):
        raise Unreadable(f"heads cannot be told, because {sharing.why}")
    return shown, held, sharing


def _mapped(reader: Reader, piece: Callable[[Array], Array], size: int, width: int, unit: float) -> tuple[Array, Heads]:
    """Which columns are each distinct head's, and how heads lie in what a piece makes of rows."""
    shown, held, sharing = told_heads(reader, piece, size, width, unit, "split")
    if not sharing.grouped:
        raise Unreadable(f"heads share keys and values in the order {list(sharing.reads)}, not side by side")
    kinds = len(sharing.columns)
    varies = next(
        axis
        for axis, length in enumerate(shown.token.shape)
        if length > 1 and (np.diff(shown.token, axis=axis) != 0).any()
    )
    shape = tuple(-1 if axis == varies else length for axis, length in enumerate(shown.token.shape))
    return sharing.columns, Heads(held.order, kinds, width, len(held.columns) // kinds, shape)


def moved_heads(reader: Reader, first: str, last: str, form: Heads) -> Heads:
    """How heads lie after they are moved on."""
    if first == last:
        return form

    def piece(x: Array) -> Array:
        native = form.native(x.reshape(len(x), form.heads, form.width)).astype(reader.probe[first].dtype)
        return reader.pieces.run({first: native}, (last,), len(x))[last]

    unit = reader.unit(first, last)
    columns, found = _mapped(reader, piece, form.heads * form.width, form.width, unit)
    if not np.array_equal(columns.ravel(), np.arange(columns.size)):
        raise Unreadable("channels are re-arranged between a norm and what follows")
    return found


def over_heads(reader: Reader, one: Segment, form: Heads) -> Callable[[Array], Array]:
    """A segment as a function of [token, head, channel]."""

    def piece(x: Array) -> Array:
        native = form.native(x).astype(reader.probe[one.first].dtype)
        made = reader.pieces.run({one.first: native}, (one.last,), len(x))[one.last]
        return form.natural(made, len(x)).astype(np.float32)

    return piece


def _rotary(reader: Reader, one: Segment, form: Heads) -> Rotary | None:
    """The rotary embedding that a segment is."""
    piece = over_heads(reader, one, form)

    def run(length: int) -> tuple[Array, Array]:
        q = np.random.default_rng(0).normal(size=(length, form.heads, form.width)).astype(np.float16).astype(np.float32)
        return q, piece(q)

    def given(length: int) -> dict[str, Array]:
        blank = np.zeros((length, form.heads, form.width), reader.probe[one.first].dtype)
        return {one.first: form.native(blank)}

    tables = tables_of(reader, one.vertices)
    switch = find_switch(reader, tables, given) if tables else None
    return read_rotary(reader, run, switch, reader.unit(one.first, one.last))
