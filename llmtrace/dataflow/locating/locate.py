"""Where a decoder's parts are in a graph, by dataflow alone. **Stream point**: a value through which all content passes; between two of
them lies a **diamond**: the stream goes by, and branches that read it are added to it.

What is no decoder of this kind is an `UnsupportedModelError`, with the place where it stops being one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from attrs import evolve, frozen

from llmtrace.dataflow.graph import Flow, Graph, Vertex
from llmtrace.dataflow.locating.anatomy import Anatomy, AttentionCell, BlockCell, Cell, Opaque
from llmtrace.dataflow.locating.attention import attention_cell, cores
from llmtrace.dataflow.locating.mlp import mlp_cell
from llmtrace.dataflow.locating.moe import moe_cell
from llmtrace.dataflow.segments import SUMS, Line, Segment, line_of, moved_from, segments
from llmtrace.errors import UnsupportedModelError

LOOK_UPS = frozenset({"Gather", "GatherBlockQuantized"})
"""Operators that look rows of a table (read first) up by indices (read second)."""
INTEGERS = frozenset(
    {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm", "QAttention"}
)
"""Operators that multiply integers by integers."""
CUTS = frozenset({"Slice", "Gather", "GatherND"})
"""Operators by which a graph keeps the last position only."""


@frozen(eq=False)
class Diamond:
    """A segment of the stream, and what is added in it."""

    segment: Segment
    branches: tuple[str, ...]
    """In the order in which they are added."""


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
    flow = graph.flow(row)
    if logits not in flow:
        raise UnsupportedModelError(
            f"The output {logits} does not follow from the vectors of the tokens: it is no decoder."
        )
    way = segments(flow, row, logits)
    diamonds = {place: found for place, one in enumerate(way) if (found := _diamond(flow, one)) is not None}
    if not diamonds:
        raise UnsupportedModelError(
            "No branch of the graph is added to what it reads: without a residual stream it is no decoder."
        )
    begin, end = min(diamonds), _end(way, max(diamonds))
    embed, pos_embed, before = _beginning(flow, way[:begin], row)
    known = {moved_from(flow, name) for name in ends}
    blocks = _blocks(flow, way[begin : end + 1], list(diamonds.values()), known)
    norm, entering, head, after, sliced = _ending(flow, way[end + 1 :])
    return Anatomy(look_up, row, before, embed, pos_embed, blocks, norm, head, after, logits, sliced, entering)


def _end(way: Sequence[Segment], last: int) -> int:
    """The last segment of the stream: factors on it go with its last block."""
    kinds = [one.kind for one in way[last + 1 :]]
    factors = [place for place, kind in enumerate(kinds) if kind == "scale" and set(kinds[:place]) <= {"scale", "move"}]
    return last + 1 + factors[-1] if factors else last


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
    if not any(_is(flow, term, one.first) for term in terms):
        terms = [each for term in terms for each in _terms(flow, term)]
    branches = [term for term in terms if not _is(flow, term, one.first)]
    if len(branches) == len(terms) or not branches:
        return None
    if len(branches) == 1 and len(parts := _terms(flow, branches[0])) > 1:
        looking = [bool(cores(flow, one.first, part)) for part in parts]
        if sum(looking) == 1 and all(flow.follows(part, one.first) for part in parts):
            branches = parts  # attention and MLP beside each other, added up before the stream is
    return Diamond(one, tuple(branches))


def _is(flow: Flow, name: str, point: str) -> bool:
    """Whether a value is a stream point, but for its type and shape."""
    while (
        name != point
        and (maker := flow.graph.maker.get(name)) is not None
        and maker.op in ("Cast", "Identity", "Reshape")
    ):
        name = maker.reads[0]
    return name == point


def _terms(flow: Flow, name: str) -> list[str]:
    """What a value is the sum of; itself where it is none."""
    maker = flow.graph.maker.get(moved_from(flow, name))
    content = list(flow.reads(maker)) if maker is not None and maker.op in SUMS else []
    return content if len(content) > 1 else [name]


def _beginning(flow: Flow, way: Sequence[Segment], row: str) -> tuple[str, str, tuple[Segment, ...]]:
    """What enters the stream, learned positions, and what stands between the looked-up row and the first."""
    embed, pos_embed, before = row, "", []
    for one in way:
        if one.kind == "add" and not pos_embed and one.vertices[0].op in SUMS:
            (pos_embed,) = (name for name in one.vertices[0].reads if name not in flow)
        elif one.kind in ("scale", "norm", "move") and not pos_embed:
            before.append(one)
            embed = one.last
        elif one.kind != "move":
            raise _unknown("between the embedding and the first block", one)
    return embed, pos_embed, tuple(one for one in before if one.kind != "move")


def _blocks(
    flow: Flow, way: Sequence[Segment], diamonds: list[Diamond], ends: Collection[str]
) -> tuple[BlockCell, ...]:
    blocks: list[BlockCell] = []
    waiting = iter(diamonds)
    for one in way:
        if one.kind == "scale" and blocks:
            blocks[-1] = evolve(blocks[-1], scales=(*blocks[-1].scales, one), post=one.last)
        elif _diamond(flow, one) is not None:
            cells = [_cell(flow, one.first, branch) for branch in next(waiting).branches]
            goes_on = blocks and (
                moved_from(flow, blocks[-1].post) not in ends if ends else _follows(blocks[-1], cells)
            )
            if goes_on and not blocks[-1].mid:
                before = blocks[-1]
                blocks[-1] = evolve(before, mid=before.post, post=one.last, cells=(*before.cells, *cells))
            else:
                blocks.append(BlockCell(one.first, "", one.last, tuple(cells)))
        elif one.kind != "move":
            raise _unknown("on the residual stream", one)
    return tuple(blocks)


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
    if len(found) == 1:
        return attention_cell(flow, point, branch, found[0])
    return moe_cell(flow, point, branch) or mlp_cell(flow, point, branch)


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
