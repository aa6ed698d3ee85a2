"""Where a decoder's parts are in a graph, by dataflow alone. **Stream point**: a value through which all content passes; between two of
them lies a **diamond**: the stream goes by, and branches that read it are added to it.

What is no decoder of this kind is an `UnsupportedModelError`, with the place where it stops being one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from attrs import evolve, frozen

from llmtrace.dataflow.graph import Flow, Graph, Vertex
from llmtrace.dataflow.locating.anatomy import Anatomy, BlockCell, CarryCell, Cell, HeadCell, Opaque
from llmtrace.dataflow.locating.anatomy_attention import AttentionCell
from llmtrace.dataflow.locating.attention import attention_cell
from llmtrace.dataflow.locating.cores import cores
from llmtrace.dataflow.locating.mlp import mlp_cell
from llmtrace.dataflow.locating.moe import moe_cell
from llmtrace.dataflow.locating.stream import beside, several
from llmtrace.dataflow.segments import MOVES, SUMS, Line, Segment, line_of, moved_from, segments
from llmtrace.errors import UnsupportedModelError

LOOK_UPS = frozenset({"Gather", "GatherBlockQuantized"})
"""Operators that look rows of a table (read first) up by indices (read second)."""
INTEGERS = frozenset(
    {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm", "QAttention"}
)
"""Operators that multiply integers by integers."""
CARRYING = frozenset({"Cast", "Identity", "Reshape", "Mul", "Div", "Add"})
"""Operators by which the stream is carried on beside what is added to it."""
CUTS = frozenset({"Slice", "Gather", "GatherND"})
"""Operators by which a graph keeps the last position only."""


@frozen(eq=False)
class Diamond:
    """What is added in a segment of the stream."""

    branches: tuple[str, ...]
    """In the order in which they are added."""
    factor: Segment | None = None
    """What multiplies the stream beside them."""


def locate(
    graph: Graph, tokens: str, logits: str, shapes: Mapping[str, tuple[int, ...]], ends: Collection[str] = ()
) -> Anatomy:
    """The parts of the decoder that makes `logits` from `tokens`; `shapes` are those of initialisers, and `ends` values that are known to
    end a block: without them a block ends where the next attention begins.
    """
    if rounding := sorted({vertex.op for vertex in graph.vertices if vertex.op in INTEGERS}):
        raise UnsupportedModelError(
            f"The graph multiplies integers ({', '.join(rounding)}) in a way that is not read: of what its matrices read, rounded as it comes "
            "(DynamicQuantizeLinear), each product is to be scaled to floats at once. Trace the graph that it was made of."
        )
    look_up = _look_up(graph, tokens, logits, shapes)
    row = look_up.makes[0]
    whole = graph.flow(row)
    if logits not in whole:
        raise UnsupportedModelError(
            f"The output {logits} does not follow from the vectors of the tokens: it is no decoder."
        )
    try:
        return _along(whole, look_up, logits, ends)
    except UnsupportedModelError as error:
        if streams := several(whole, row, logits):
            raise UnsupportedModelError(
                f"What enters the stream is spread into {streams} streams, which are mixed or take turns on the way (hyper-connections, AltUp, "
                "reversible layers): only one residual stream is read."
            ) from error
        raise


def _along(whole: Flow, look_up: Vertex, logits: str, ends: Collection[str]) -> Anatomy:
    """The parts of a decoder along its stream."""
    row, graph = look_up.makes[0], whole.graph
    past = beside(whole, row, logits)
    flow = graph.flow(row, past) if past else whole
    way = segments(flow, row, logits)
    diamonds = {place: found for place, one in enumerate(way) if (found := _diamond(flow, one)) is not None}
    if not diamonds:
        raise UnsupportedModelError(
            "No branch of the graph is added to what it reads: without a residual stream it is no decoder."
        )
    begin, end = _begin(way, sorted(diamonds)), _end(way, max(diamonds))
    embed, pos_embed, before, enters = _beginning(flow, way[:begin], row)
    known = {moved_from(flow, name) for name in ends}
    stream = [(one, diamonds.get(place)) for place, one in enumerate(way[: end + 1])]
    blocks = _blocks(flow, stream[begin:], known)
    blocks = (evolve(blocks[0], carry_pre=CarryCell(None, enters)), *blocks[1:])
    last, between = _between(flow, way[end + 1 :])
    norm, entering, head, after, sliced = _ending(flow, last)
    return Anatomy(
        look_up, row, before, embed, pos_embed, blocks, norm, head, after, logits, sliced, entering, between, past
    )


def _begin(way: Sequence[Segment], diamonds: Sequence[int]) -> int:
    """The first segment of the stream: a norm goes with its first block if it comes after positions, or if others stand between diamonds."""
    kinds = [one.kind for one in way]
    before = [place for place in range(diamonds[0]) if kinds[place] != "move"]
    own = "add" in kinds[: diamonds[0]] or "norm" in kinds[diamonds[0] : diamonds[-1]]
    return before[-1] if own and before and kinds[before[-1]] == "norm" else diamonds[0]


def _end(way: Sequence[Segment], last: int) -> int:
    """The last segment of the stream: factors on it, and what is added late, go with its last block."""
    kinds = [one.kind for one in way[last + 1 :]]
    own = [
        place
        for place, kind in enumerate(kinds)
        if kind in ("scale", "add") and set(kinds[:place]) <= {"scale", "add", "move"}
    ]
    return last + 1 + own[-1] if own else last


def _look_up(graph: Graph, tokens: str, logits: str, shapes: Mapping[str, tuple[int, ...]]) -> Vertex:
    """Where tokens become vectors: the look-up that the logits rest on, of a constant table, by what only re-arranges the ids."""
    flow = graph.flow(tokens)
    found: list[tuple[bool, int, Vertex]] = []
    for vertex in graph.vertices:
        if vertex.op not in LOOK_UPS or vertex.reading(1) not in flow or vertex.reads[0] not in graph.constants:
            continue
        if logits not in flow or not flow.follows(logits, vertex.makes[0]) or graph.is_number(vertex.reads[0]):
            continue
        shape = shapes.get(vertex.reads[0], (0, 0))
        direct = moved_from(flow, vertex.reads[1]) == tokens
        if len(shape) >= 2:
            found.append((direct, shape[0], vertex))
    if not found:
        raise UnsupportedModelError(f"No table is looked up by the input {tokens}: it is no decoder that reads tokens.")
    return max(found, key=lambda each: each[:2])[2]


def _diamond(flow: Flow, one: Segment) -> Diamond | None:
    """A segment that ends in a sum of what it begins with and of branches."""
    maker = flow.graph.maker[one.last]
    if maker.op not in SUMS:
        return None
    terms = list(flow.reads(maker))
    if not any(_carried(flow, term, one.first) for term in terms):
        terms = [each for term in terms for each in _terms(flow, term)]
    carried = {term: segment for term in terms if (segment := _carried(flow, term, one.first)) is not None}
    branches = [term for term in terms if term not in carried]
    if len(carried) != 1 or not branches:
        return None
    (factor,) = carried.values()
    if len(branches) == 1 and len(parts := _terms(flow, branches[0])) > 1:
        looking = [bool(cores(flow, one.first, part)) for part in parts]
        if sum(looking) == 1 and all(flow.follows(part, one.first) for part in parts):
            branches = parts  # attention and MLP beside each other, added up before the stream is
    return Diamond(tuple(branches), None if factor.kind == "move" else factor)


def _carried(flow: Flow, name: str, point: str) -> Segment | None:
    """What lies between a stream point and a value that is it but for its type and shape, a factor and a bias; None where it is none."""
    here, vertices = name, list[Vertex]()
    while here != point:
        maker = flow.graph.maker.get(here)
        if maker is None or maker.op not in CARRYING or len(content := flow.reads(maker)) != 1:
            return None
        if any(each and each not in content and each not in flow.graph.constants for each in maker.reads[:2]):
            return None
        vertices.append(maker)
        (here,) = content
    kind = "move" if all(vertex.op in MOVES for vertex in vertices) else "scale"
    return Segment(kind, point, name, tuple(reversed(vertices)))


def _terms(flow: Flow, name: str) -> list[str]:
    """What a value is the sum of; itself where it is none."""
    maker = flow.graph.maker.get(moved_from(flow, name))
    content = list(flow.reads(maker)) if maker is not None and maker.op in SUMS else []
    return content if len(content) > 1 else [name]


def _beginning(flow: Flow, way: Sequence[Segment], row: str) -> tuple[str, str, tuple[Segment, ...], Segment | None]:
    """What enters the stream, learned positions, what stands between the looked-up row and the first, and what channels are multiplied by."""
    embed, pos_embed = row, ""
    before, enters = list[Segment](), list[Segment]()
    for one in way:
        others = [name for name in one.vertices[0].reads if name and name not in flow]
        wide = bool(others) and _is_learned(flow.graph, others[0])
        if one.kind == "add" and others and flow.graph.is_number(others[0]):
            continue  # nought, or the first point of the stream is found to be another
        if (one.kind in ("add", "scale") and wide and not pos_embed) or (enters and one.kind == "scale"):
            enters.append(one)
        elif one.kind == "add" and not pos_embed and not enters and one.vertices[0].op in SUMS:
            (pos_embed,) = others
        elif one.kind in ("scale", "norm", "move") and not pos_embed and not enters:
            before.append(one)
            embed = one.last
        elif one.kind != "move":
            raise _unknown("between the embedding and the first block", one)
    kept = tuple(one for one in before if one.kind != "move")
    if not enters:
        return embed, pos_embed, kept, None
    vertices = tuple(flow.between(embed, enters[-1].last))
    return embed, pos_embed, kept, Segment("scale", embed, enters[-1].last, vertices)


def _is_learned(graph: Graph, name: str) -> bool:
    """Whether a value is a vector that the graph holds, but for its type and shape: positions are looked up or sliced."""
    while name not in graph.initialisers and (vertex := graph.maker.get(name)) is not None and vertex.op in CARRYING:
        name = vertex.reads[0]
    return name in graph.initialisers and not graph.is_number(name)


def _blocks(
    flow: Flow, stream: Sequence[tuple[Segment, Diamond | None]], ends: Collection[str]
) -> tuple[BlockCell, ...]:
    blocks: list[BlockCell] = []
    norm: Segment | None = None
    for one, diamond in stream:
        if one.kind == "scale" and blocks and norm is None:
            blocks[-1] = evolve(blocks[-1], scales=(*blocks[-1].scales, one), post=one.last)
        elif one.kind == "norm" and norm is None:
            norm = one
        elif diamond is not None:
            point = norm.first if norm is not None else one.first
            cells = tuple(_cell(flow, point, branch) for branch in diamond.branches)
            carry = CarryCell(norm, diamond.factor)
            if blocks and not _ended(flow, blocks[-1], cells, norm, ends):
                blocks[-1] = _longer(blocks[-1], cells, carry, one)
            else:
                blocks.append(BlockCell(point, "", one.last, cells, carry_post=carry))
            norm = None
        elif one.kind == "add" and blocks and norm is None and (late := _late(flow, one)) and not blocks[-1].scales:
            cell = Opaque("mlp", blocks[-1].mid or blocks[-1].pre, late, "it is made of an earlier point of the stream")
            blocks[-1] = evolve(blocks[-1], post=one.last, cells=(*blocks[-1].cells, cell))
        elif one.kind != "move":
            raise _unknown("on the residual stream", one)
    return tuple(blocks)


def _late(flow: Flow, one: Segment) -> str:
    """What is added to the stream that comes past it; empty where it is something else."""
    return next(iter(flow.beside.get(one.vertices[-1].index, ())), "")


def _ended(flow: Flow, before: BlockCell, cells: Sequence[Cell], norm: Segment | None, ends: Collection[str]) -> bool:
    """Whether a block is whole, and what comes next is another's."""
    if ends:
        points = {moved_from(flow, name) for name in (before.post, *([norm.last] if norm is not None else []))}
        return not points.isdisjoint(ends) or bool(before.mid and any(map(_looks, cells)))
    return bool(before.mid) or not _follows(before, cells)


def _longer(before: BlockCell, cells: tuple[Cell, ...], carry: CarryCell, one: Segment) -> BlockCell:
    """A block with one more sum. Raises `UnsupportedModelError` where a third does more than add."""
    if not before.mid:
        return evolve(
            before, mid=before.post, post=one.last, cells=(*before.cells, *cells),
            carry_mid=before.carry_post, carry_post=carry,
        )  # fmt: skip
    if carry.norm is not None or carry.factor is not None or before.scales:
        raise _unknown("on the residual stream", one)
    return evolve(before, post=one.last, cells=(*before.cells, *cells))


def _follows(before: BlockCell, cells: Sequence[Cell]) -> bool:
    """Whether what a diamond adds is the MLP of the block before, and no block of its own, as far as that can be seen."""
    return (
        not any(_looks(cell) for cell in cells)
        and not before.scales
        and all(_looks(cell) for cell in before.cells)
        and not all(isinstance(cell, Opaque) for cell in (*before.cells, *cells))
    )


def _looks(cell: Cell) -> bool:
    """Whether heads look at each other in it, as far as that is known."""
    return isinstance(cell, AttentionCell) or (isinstance(cell, Opaque) and cell.name == "attn")


def _cell(flow: Flow, point: str, branch: str) -> Cell:
    found = cores(flow, point, branch)
    if any(vertex.index in flow.beside for vertex in flow.between(point, branch)):
        why = "it reads, besides the stream, something else that was made of the tokens"
        return Opaque("attn" if len(found) == 1 else "mlp", point, branch, why)
    if len(found) == 1:
        return attention_cell(flow, point, branch, found[0])
    return moe_cell(flow, point, branch) or mlp_cell(flow, point, branch)


def _between(flow: Flow, way: Sequence[Segment]) -> tuple[Sequence[Segment], HeadCell | None]:
    """The way from the stream to the logits without a matrix, an activation and a norm before the unembedding, and these."""
    lines = [place for place, one in enumerate(way) if one.kind == "line"]
    if len(lines) != 2 or "norm" not in [one.kind for one in way[: lines[0]]]:
        return way, None
    inside = [one for one in way[lines[0] + 1 : lines[1]] if one.kind != "move"]
    norm = inside.pop() if inside and inside[-1].kind == "norm" else None
    if not {"point"} <= {one.kind for one in inside} <= {"point", "scale"}:
        return way, None
    cell = HeadCell(line_of(flow, way[lines[0]]), inside[-1].last, norm)
    return (*way[: lines[0]], *way[lines[1] :]), cell


def _ending(
    flow: Flow, way: Sequence[Segment]
) -> tuple[Segment | None, tuple[Segment, ...], Line, tuple[Segment, ...], bool]:
    """The last norm, factors after it, the unembedding, what stands after that, and whether positions are cut off."""
    lines = [place for place, one in enumerate(way) if one.kind == "line"]
    if len(lines) != 1:
        raise UnsupportedModelError(f"{len(lines)} matrices stand between the last block and the logits, and not one.")
    before, after = way[: lines[0]], way[lines[0] + 1 :]
    norms = [one for one in before if one.kind == "norm"]
    entering: list[Segment] = []
    for one in before:
        if one.kind == "scale" and norms and one.first != norms[0].first:
            entering.append(one)
        elif one.kind not in ("norm", "move") or len(norms) > 1:
            raise _unknown("between the last block and the unembedding", one)
    sliced = any(vertex.op in CUTS for one in way if one.kind == "move" for vertex in one.vertices)
    kept = tuple(one for one in after if one.kind != "move")
    for one in kept:
        if one.kind not in ("scale", "point"):
            raise _unknown("between the unembedding and the logits", one)
    return (norms[0] if norms else None), tuple(entering), line_of(flow, way[lines[0]]), kept, sliced


def _unknown(where: str, one: Segment) -> UnsupportedModelError:
    ops = " → ".join(vertex.op for vertex in one.vertices[:8])
    return UnsupportedModelError(
        f"What stands {where}, from {one.first} to {one.last} ({ops}), is nothing that a decoder is known to do there."
    )
