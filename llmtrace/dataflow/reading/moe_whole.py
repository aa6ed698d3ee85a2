"""Experts in one vertex that was not looked into: which of the constants that it holds is which matrix, and what lies between them, is told by
what it makes of random rows, experts and weights. **Way**: one guess at all of that; the one that says what the vertex makes is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import permutations

import numpy as np
from attrs import evolve, frozen

from llmtrace.dataflow.constants import Source
from llmtrace.dataflow.forms import Rows
from llmtrace.dataflow.identify.measured import FLOAT32
from llmtrace.dataflow.locating.anatomy_moe import MoeWholeCell
from llmtrace.dataflow.reading.moe import ReadMoe, read_factor, read_routing, read_shared
from llmtrace.dataflow.reading.reader import UNITS, Reader, Unreadable
from llmtrace.schema import moe as equations
from llmtrace.schema.functions import ACTIVATIONS
from llmtrace.schema.sites import Array
from llmtrace.spec import GatedMlp, Mlp, Moe

ROWS, LARGEST = 16, 256.0
"""Random rows, and how many times larger the last is than the first: an activation shows all that it is."""
OFF, MOST = 256, 0.03
"""How many units of rounding the vertex may be off on a row; and how much at most, relative."""
APART = 2.0
"""How many times worse the next guess must be."""


@frozen(eq=False)
class Held:
    """A constant as matrices of experts."""

    name: str
    into: Callable[[Array], Array]
    """From the constant to [expert d_model wide]: what rows are multiplied by."""
    outof: Callable[[Array], Array]
    """From the constant to [expert wide d_model]."""
    wide: int


@frozen(eq=False)
class Way:
    """Which constant is which matrix."""

    expert: GatedMlp | Mlp
    """With any activation."""
    matrices: Mapping[str, Source]
    """`W_gate`, `W_in`, `W_out`, each with a leading expert axis."""


@frozen(eq=False)
class Tried:
    """What the vertex was given, and made."""

    x: Array
    index: Array
    mix: Array
    made: Array
    """[token d_model]."""


def read_moe_whole(reader: Reader, cell: MoeWholeCell) -> ReadMoe:
    """What a mixture of experts is. Raises `Unreadable`."""
    routing = cell.routing
    router, places, weights = read_routing(reader, routing)
    places["out"] = (cell.out, Rows())
    experts = reader.probe[routing.line.makes].shape[-1]
    way = _way(reader, cell, experts)
    weights |= way.matrices
    factor = read_factor(reader, cell.scales)
    if factor != 1:  # weights that are multiplied later than where they are seen are left to the equations
        del places["router_weights"]
    shared = read_shared(reader, cell.shared, places, weights)
    module = Moe(
        experts, router.choices, way.expert, router.scoring, router.renormalise, router.scale * factor, bool(routing.line.bias),
        router.correction is not None, shared, router.eps, router.near, groups=router.groups,
    )  # fmt: skip
    return ReadMoe(module, places, weights)


def _way(reader: Reader, cell: MoeWholeCell, experts: int) -> Way:
    """The way that says what the vertex makes of random rows."""
    width = reader.probe[cell.rows].size // reader.tokens
    tried = _tried(reader, cell, experts, width)
    held = _held(reader, cell, experts, width)
    kinds = [np.asarray(reader.constants[each.name]).dtype for each in held]
    unit = max(reader.unit(cell.rows, cell.makes), *(UNITS.get(kind, FLOAT32) for kind in kinds))
    guesses = [
        (off, evolve(way, expert=evolve(way.expert, act=act)))
        for order in permutations(held)
        for way in _ways(reader, order)
        for act, off in _off(way, tried, experts)
    ]
    guesses.sort(key=lambda each: each[0])
    if len(guesses) < 2:
        raise Unreadable("its experts hold too few or too many matrices")
    (off, best), (second, other), *_ = guesses
    if off > min(OFF * unit, MOST):
        raise Unreadable(
            f"what its experts make of random rows is nothing that their matrices make of them: the nearest is off by {off:.2g}"
        )
    if second < APART * off:
        acts = f"{best.expert.act}, {other.expert.act}"
        raise Unreadable(f"two ways of joining its experts' matrices fit at the resolution of their numbers ({acts})")
    return best


def _tried(reader: Reader, cell: MoeWholeCell, experts: int, width: int) -> Tried:
    """What the vertex makes of some rows, by as many experts as a token takes, or two."""
    choices = reader.probe[cell.routing.index].size // reader.tokens
    rng = np.random.default_rng(0)
    some = rng.permutation(experts)[: max(choices, 2)]
    index = np.stack([np.roll(np.resize(some, ROWS), turn) for turn in range(choices)], -1)
    if len(some) < choices:
        raise Unreadable("it has fewer experts than a token takes")
    drawn = rng.normal(size=(ROWS, width)) * np.geomspace(1, LARGEST, ROWS)[:, None], rng.uniform(0.25, 1, index.shape)
    x, mix = (array.astype(np.float16).astype(np.float32) for array in drawn)
    given = {cell.rows: reader.native(cell.rows, x), cell.routing.weights: reader.native(cell.routing.weights, mix)}
    told = next(name for name in reader.flow.reads(cell.vertex) if name not in given)
    like = reader.probe[told]
    given[told] = index.reshape(*(1,) * (like.ndim - 2), len(index), -1).astype(like.dtype)
    made = reader.pieces.run(given, (cell.makes,), ROWS)[cell.makes].reshape(ROWS, -1)
    return Tried(x.astype(np.float64), index, mix.astype(np.float64), made.astype(np.float64))


def _off(way: Way, tried: Tried, experts: int) -> Iterator[tuple[str, float]]:
    """How far a way is off with each activation, relative to the row where it is most; of the experts that were tried."""
    some, index = np.unique(tried.index, return_inverse=True)
    index = index.reshape(tried.index.shape)
    w = {name: source.read()[some].astype(np.float32) for name, source in way.matrices.items()}
    m, linear = Moe(experts, tried.mix.shape[-1], way.expert), None
    if isinstance(way.expert, GatedMlp):
        pre = equations.pre(m, tried.x, index, W_gate=w["W_gate"])
        linear = equations.pre_linear(m, tried.x, index, w["W_in"])
    else:
        pre = equations.pre(m, tried.x, index, W_plain=w["W_in"])
    for act in ACTIVATIONS:
        post = equations.post(evolve(m, expert=evolve(way.expert, act=act)), pre, linear)
        expected = equations.out(m, post, tried.mix, index, w["W_out"])
        size = np.linalg.norm(expected, axis=-1)
        if (size > 0).all():
            yield act, float((np.linalg.norm(tried.made - expected, axis=-1) / size).max())


def _ways(reader: Reader, order: tuple[Held, ...]) -> Iterator[Way]:
    """The guesses with the constants in one order, the last matrix last."""
    *first, last = order
    wide = last.wide
    out = _source(reader, last.name, last.outof)
    sizes = [each.wide for each in first]
    if sizes == [wide, wide]:
        gate, linear = (_source(reader, each.name, each.into) for each in first)
        yield Way(GatedMlp(wide, ""), {"W_gate": gate, "W_in": linear, "W_out": out})
    elif sizes == [2 * wide]:
        both = _source(reader, first[0].name, first[0].into)
        halves = (slice(None, wide), slice(wide, None)), (slice(0, None, 2), slice(1, None, 2))
        for one, other in (each[::turn] for each in halves for turn in (1, -1)):
            gate, linear = both.then(_columns(one)), both.then(_columns(other))
            yield Way(GatedMlp(wide, ""), {"W_gate": gate, "W_in": linear, "W_out": out})
    elif sizes == [wide]:
        yield Way(Mlp(wide, ""), {"W_in": _source(reader, first[0].name, first[0].into), "W_out": out})


def _source(reader: Reader, name: str, turn: Callable[[Array], Array]) -> Source:
    return Source(name, lambda: turn(np.asarray(reader.constants[name])))


def _columns(some: slice) -> Callable[[Array], Array]:
    return lambda array: array[..., some]


def _held(reader: Reader, cell: MoeWholeCell, experts: int, width: int) -> list[Held]:
    """The constants of the vertex as matrices of experts: [expert a b], or experts one below the other."""
    found = []
    for name in cell.vertex.attributes["holds"]:
        shape = np.asarray(reader.constants[name]).shape
        wide, left = divmod(int(np.prod(shape)), experts * width)
        if not shape or int(np.prod(shape)) == 1:
            continue
        if left or len(shape) not in (2, 3):
            raise Unreadable("its experts hold other constants than their matrices")
        rows = shape[-1] == width and shape in ((experts, wide, width), (experts * wide, width))
        if not rows and shape not in ((experts, width, wide), (experts * width, wide)):
            raise Unreadable("its experts hold other constants than their matrices")
        split = (experts, wide, width) if rows else (experts, width, wide)
        plain, turned = partial(_shaped, split), partial(_turned, split)
        found.append(Held(name, turned if rows else plain, plain if rows else turned, wide))
    return found


def _shaped(shape: tuple[int, ...], array: Array) -> Array:
    return array.reshape(shape)


def _turned(shape: tuple[int, ...], array: Array) -> Array:
    return array.reshape(shape).swapaxes(1, 2)
