"""From the parts of a graph to the spec of the model that runs, the values that hold its signals, and what reads its weights.

A branch that the spec has no words for is a `Mixer` by the name of what it looks like: what it adds to the stream is captured, and no
equation is claimed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from attrs import evolve, field, frozen

from llmtrace.dataflow.constants import Source
from llmtrace.dataflow.forms import Biased, Form, Part, Rows
from llmtrace.dataflow.locating.anatomy import Anatomy, BlockCell, CarryCell, Cell, Known, Opaque
from llmtrace.dataflow.locating.anatomy_attention import AttentionCell
from llmtrace.dataflow.locating.anatomy_moe import MoeCell, MoeOperatorCell, MoeWholeCell
from llmtrace.dataflow.reading.attention import ReadAttention, read_attention
from llmtrace.dataflow.reading.carry import ReadCarry, read_carry
from llmtrace.dataflow.reading.ends import read_ends
from llmtrace.dataflow.reading.mlp import ReadMlp, read_mlp
from llmtrace.dataflow.reading.moe import ReadMoe, read_moe
from llmtrace.dataflow.reading.moe_operator import read_moe_operator
from llmtrace.dataflow.reading.moe_whole import read_moe_whole
from llmtrace.dataflow.reading.norms import read_norm
from llmtrace.dataflow.reading.reader import Reader, Unreadable
from llmtrace.dataflow.segments import Segment, moved_from, segments
from llmtrace.errors import BackendError, UnsupportedModelError
from llmtrace.schema.sites import Array
from llmtrace.spec import Block, Branch, Carry, Mixer, ModelSpec, PreNorm


@frozen(eq=False)
class ReadModel:
    """What a graph is."""

    spec: ModelSpec
    places: dict[str, tuple[str, Form]]
    """Site to the value that holds it, and how it lies there."""
    weights: dict[str, Source]
    """Weight to where it comes from."""
    why: dict[str, str] = field(factory=dict)
    """Beginning of a site's name to the reason why nothing more is known there."""

    def without(
        self, hidden: Collection[str], sums: Mapping[str, tuple[str, str]], constants: Mapping[str, Array]
    ) -> ReadModel:
        """The same, where some values are never handed out: of `sums` a term is, and a constant is added to it; what the others hold is left
        to the equations.
        """
        places = dict(self.places)
        for site, (name, form) in self.places.items():
            if name in sums and isinstance(form, Rows | Part):
                places[site] = (sums[name][0], Biased(form, np.asarray(constants[sums[name][1]]).reshape(-1)))
            elif name in hidden:
                del places[site]
        return evolve(self, places=places)

    def rounding(self, matrices: Mapping[str, str]) -> ReadModel:
        """The same, where what is multiplied by some constants is rounded: `matrices` says to what."""
        return evolve(
            self,
            weights={
                name: evolve(source, operands=matrices[source.constant]) if source.constant in matrices else source
                for name, source in self.weights.items()
            },
        )


def read_model(reader: Reader, anatomy: Anatomy, family: str, context: int | None) -> ReadModel:
    """The model that a graph computes. Raises `UnsupportedModelError` where its ends cannot be read."""
    width = reader.probe[anatomy.embed].size // reader.tokens
    ends = read_ends(reader, anatomy, width)
    places: dict[str, tuple[str, Form]] = {"embed": (anatomy.embed, Rows())}
    if anatomy.pos_embed:
        places["pos_embed"] = (anatomy.pos_embed, Rows())
    weights = dict(ends.weights)
    why: dict[str, str] = {}
    if ends.positions is not None:
        left = ends.positions.length - ends.positions.offset
        context = left if context is None else min(context, left)
        reader = evolve(reader, context=min(context, reader.context))
    blocks = []
    for layer, cell in enumerate(anatomy.blocks):
        read = _Block(reader, cell, width, f"blocks.{layer}.")
        blocks.append(read.block())
        places |= read.places
        weights |= read.weights
        why |= read.why
    if anatomy.ln_final is not None:
        places["ln_final.out"] = (anatomy.ln_final.last, Rows())
    places |= {**ends.places, "logits": (anatomy.logits, Rows())}
    spec = ModelSpec(
        family,
        width,
        ends.vocab,
        context,
        tuple(blocks),
        ends.ln_final,
        ends.embed,
        ends.positions,
        ends.unembed,
        ends.head,
    )
    return ReadModel(spec, places, weights, why)


def _module(reader: Reader, cell: Known) -> ReadAttention | ReadMlp | ReadMoe:
    """What a branch computes. Raises `Unreadable`."""
    if isinstance(cell, AttentionCell):
        return read_attention(reader, cell)
    if isinstance(cell, MoeCell):
        return read_moe(reader, cell)
    if isinstance(cell, MoeWholeCell):
        return read_moe_whole(reader, cell)
    return read_moe_operator(reader, cell) if isinstance(cell, MoeOperatorCell) else read_mlp(reader, cell)


class _Block:
    """One block, as it is read."""

    def __init__(self, reader: Reader, cell: BlockCell, width: int, at: str) -> None:
        self._reader = reader
        self._cell = cell
        self._width = width
        self._at = at
        self._norms: dict[str, PreNorm] = {}
        self._nameless = 0
        """Norms that could not be read."""
        self.places: dict[str, tuple[str, Form]] = {at + "resid_pre": (cell.pre, Rows())}
        self.weights: dict[str, Source] = {}
        self.why: dict[str, str] = {}

    def block(self) -> Block:
        """The record."""
        cell = self._cell
        if cell.mid:
            self.places[self._at + "resid_mid"] = (cell.mid, Rows())
        self.places[self._at + "resid_post"] = (cell.post, Rows())
        ordered = sorted(cell.cells, key=lambda each: _kind(each) != "attn")
        names = _names(ordered)
        if len(set(names)) < len(names):
            raise UnsupportedModelError(
                f"{self._at.rstrip('.')} has more branches than an attention, a mixer and an MLP."
            )
        branches = tuple(self._branch(name, each) for name, each in zip(names, ordered, strict=True))
        scale = self._stream_scale()
        pre = self._carry(cell.carry_pre, "resid_pre")
        mid = self._carry(cell.carry_mid, "resid_mid") if cell.mid else Carry()
        post = self._carry(cell.carry_post, "resid_post")
        return Block(tuple(self._norms.values()), branches, scale, carry_pre=pre, carry_mid=mid, carry_post=post)

    def _carry(self, cell: CarryCell, point: str) -> Carry:
        """What of the stream goes on into a point of it. Raises `UnsupportedModelError` where that is nothing that is known."""
        try:
            reads = self._normed(cell.norm) if cell.norm is not None else ""
            if cell.factor is None:
                return Carry(reads)
            found = read_carry(self._reader, cell.factor, self._width)
        except (Unreadable, BackendError) as why:
            at = self._at.rstrip(".")
            raise UnsupportedModelError(
                f"What of the stream goes on into {point} of {at} is not known: {why}."
            ) from why
        self.weights |= {f"{self._at}{point}.{part}": read for part, read in found.weights.items()}
        return evolve(found.carry, reads=reads)

    def _branch(self, name: str, cell: Cell) -> Branch:
        """A branch; an opaque one where it cannot be read, or is one of two of its kind."""
        kept = dict(self.places), dict(self.weights), dict(self._norms), dict(self.why)
        if isinstance(cell, Opaque):
            reads, ends, why = cell.reads, cell.ends, cell.why
        else:
            reads, ends, why = cell.norm.first if cell.norm else cell.reads, cell.tail.ends, "another branch is its MLP"
            if name != "mixer":
                try:
                    return self._read(name, cell)
                except (Unreadable, BackendError) as error:
                    self.places, self.weights, self._norms, self.why = kept
                    why = str(error)
        if len(self._cell.cells) == 1 and name == "mlp":  # what alone makes a block, and is no MLP that is known
            name = "mixer"
        self.places[f"{self._at}{name}_out"] = (ends, Rows())
        self.why[self._at + name] = why
        return Branch(name, self._entrance(reads, ends), Mixer("unread"))

    def _entrance(self, reads: str, ends: str) -> str:
        """The site that an opaque branch reads: the norm that it begins with, or the stream."""
        first = next((one for one in segments(self._reader.flow, reads, ends) if one.kind != "move"), None)
        if first is not None and first.kind == "norm" and first.last in self._reader.probe:
            try:
                return self._normed(first)
            except (Unreadable, BackendError):  # something else that takes means: a number is left to it all the same
                self._nameless += 1
        return self._stream(reads)

    def _read(self, name: str, cell: Known) -> Branch:
        reads = self._reads(cell)
        found = _module(self._reader, cell)
        if isinstance(found, ReadAttention):
            self.why |= {f"{self._at}{name}.{part}": why for part, why in found.why.items()}
        for part, place in found.places.items():
            self.places[f"{self._at}{name}.{part}"] = place
        for part, read in found.weights.items():
            self.weights[f"{self._at}{name}.{part}"] = read
        post = None
        if cell.tail.post is not None:
            normed = read_norm(self._reader, cell.tail.post, self._width)
            post = normed.norm
            self.places[f"{self._at}{name}_post.out"] = (cell.tail.post.last, Rows())
            self.weights |= {f"{self._at}{name}_post.{part}": read for part, read in normed.weights.items()}
        self.places[f"{self._at}{name}_out"] = (cell.tail.ends, Rows())
        if any(
            cell.tail.post is not None and self._reader.flow.follows(cell.tail.post.first, one.last)
            for one in cell.tail.scales
        ):
            raise Unreadable("a factor stands before the norm of its output")
        if isinstance(cell, AttentionCell) and cell.why_tail:
            self.why[f"{self._at}{name}_out"] = cell.why_tail
            return Branch(name, reads, found.module, followed=False)
        if not cell.tail.scales:
            return Branch(name, reads, found.module, post)
        scaled = self._scaled(cell.tail.scales)
        if scaled.carry.bias:
            raise Unreadable("something is added to each channel of its output after the last matrix")
        self.weights |= {f"{self._at}{name}_out.{part}": read for part, read in scaled.weights.items()}
        return Branch(name, reads, found.module, post, scaled.carry.scale, weight=scaled.carry.weight)

    def _reads(self, cell: Known) -> str:
        """The site that a branch reads; its norm is read with it."""
        return self._stream(cell.reads) if cell.norm is None else self._normed(cell.norm)

    def _normed(self, norm: Segment) -> str:
        """The site that a norm of the stream makes. Raises `Unreadable`."""
        known = self._norms.get(norm.last)
        if known is None:
            name = f"ln{len(self._norms) + self._nameless + 1}"
            found = read_norm(self._reader, norm, self._width)
            known = self._norms[norm.last] = PreNorm(name, self._stream(norm.first), found.norm)
            self.places[f"{self._at}{name}.out"] = (norm.last, Rows())
            self.weights |= {f"{self._at}{name}.{part}": read for part, read in found.weights.items()}
        return f"{known.name}.out"

    def _stream(self, value: str) -> str:
        """The last point of the stream before a value, or the one that it is."""
        mid, flow = self._cell.mid, self._reader.flow
        return "resid_mid" if mid and (self._is(value, mid) or flow.follows(value, mid)) else "resid_pre"

    def _is(self, value: str, point: str) -> bool:
        return moved_from(self._reader.flow, value) == moved_from(self._reader.flow, point)

    def _stream_scale(self) -> float:
        """What the stream is multiplied by at the block's end."""
        if not self._cell.scales:
            return 1.0
        try:
            found = self._scaled(self._cell.scales)
        except (Unreadable, BackendError) as why:
            raise UnsupportedModelError(
                f"The stream of {self._at.rstrip('.')} is not known at its end: {why}."
            ) from why
        if found.weights:
            raise UnsupportedModelError(
                f"The stream is multiplied by a number a channel at the end of {self._at.rstrip('.')}."
            )
        return found.carry.scale

    def _scaled(self, scales: Sequence[Segment]) -> ReadCarry:
        """What some segments that follow each other multiply by."""
        vertices = tuple(vertex for one in scales for vertex in one.vertices)
        return read_carry(self._reader, Segment("scale", scales[0].first, scales[-1].last, vertices), self._width)


def _names(cells: Sequence[Cell]) -> list[str]:
    """What each branch of a block is called: of several that look alike all but one are mixers, opaque ones first."""
    opaque_first = sorted(range(len(cells)), key=lambda place: not isinstance(cells[place], Opaque))
    last = {_kind(cells[place]): place for place in opaque_first}
    return [_kind(each) if last[_kind(each)] == place else "mixer" for place, each in enumerate(cells)]


def _kind(cell: Cell) -> str:
    """`attn` or `mlp`: what a branch is, or looks like."""
    if isinstance(cell, Opaque):
        return cell.name
    return "attn" if isinstance(cell, AttentionCell) else "mlp"
