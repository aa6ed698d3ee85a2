"""Where the sites are in llama.cpp's graph. **Place**: a vertex, and how the signal lies in it; **parts**: the contributions that a vertex
is the sum of.

Where a weight is read, a site shows: the product with `W_Q` is `q`, what the product with `W_O` reads is `z_post`. The stream has no
weights: its sums are known by what flows into them. What is written to the cache are `rot_k` and `v`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from attrs import evolve, frozen

from llmtrace.errors import UnsupportedModelError
from llmtrace.families.native import Family, native_of
from llmtrace.families.weights import stored_as
from llmtrace.schema.steps import Step, steps
from llmtrace.spec import Attention, Branch, Embedding, ModelSpec, Moe, Norm, Positions, Sum, Unembedding
from llmtrace_llamacpp.graph import LOOKS, Graph, Vertex

Parts = frozenset[str]
PRODUCTS = ("MUL_MAT", "MUL_MAT_ID")
BIASES = ("ADD", "ADD_ID")
NORMS = ("NORM", "RMS_NORM")
PARTS = ("VIEW",)
"""A vertex that shows a piece of another: the whole is where the piece is computed."""
TURNED = ("q", "k", "rot_q", "rot_k")
"""Signals of attention whose channels stand as pairs of neighbours, where the file's rows do."""


@frozen
class Place:
    """Where one site is."""

    vertex: int
    """Index of the vertex that holds it."""
    axes: str
    """As they lie there, slowest first; `(head d_head)` is one axis."""
    piece: int = 0
    """Which piece, where several signals lie in one."""
    divisor: float = 1.0
    """What llama.cpp multiplied the signal by, to be undone."""
    pairs: bool = False
    """Whether the channels of a head stand as pairs of neighbours, to be put into halves."""


def places(graph: Graph, spec: ModelSpec, family: Family, permuted: bool) -> dict[str, Place]:
    """The sites that the graph shows, in dataflow order. `permuted`: rows of `W_Q` and `W_K` stand as pairs in the file."""
    table = steps(spec)
    finder = _Finder(graph, spec, family)
    found = finder.by_weights() | finder.by_caches() | finder.by_parts()
    for site, step in table.items():
        if site not in found and step.equation.name in ("rot_q", "rot_k") and _unturned(step.record):
            same = step.signals[step.equation.name[-1]]
            found |= {site: found[same]} if same in found else {}
    found["logits"] = Place(len(graph.vertices) - 1, "token vocab")
    for site, place in found.items():
        if permuted and isinstance(table[site].record, Attention) and table[site].equation.name in TURNED:
            found[site] = evolve(place, pairs=True)
    return {site: found[site] for site in table if site in found}


def _unturned(attention: Attention) -> bool:
    """Whether q and k go into the product as they are."""
    return attention.rotary is None and attention.q_norm is None and attention.k_norm is None


class _Finder:
    """One graph, looked at in three ways."""

    def __init__(self, graph: Graph, spec: ModelSpec, family: Family) -> None:
        self._graph = graph
        self._spec = spec
        self._family = family
        self._steps = steps(spec)

    def by_weights(self) -> dict[str, Place]:
        """What weights make, and what the last matrix of a branch reads."""
        found: dict[str, Place] = {}
        for site, step in self._steps.items():
            found |= dict(self._of(site, step))
        return found

    def _of(self, site: str, step: Step) -> Iterator[tuple[str, Place]]:
        record, name = step.record, step.equation.name
        if isinstance(record, Norm):
            if name == "out" and (last := self._normed(step)):
                yield site, Place(last.index, self._axes(step))
        elif isinstance(record, Moe):
            yield from self._experts(step)
        elif isinstance(record, Embedding | Positions | Unembedding | Sum | Branch):
            return
        elif (made := self._product(step)) is not None and (last := self._shown(step, made[2])) is not None:
            weight, product, _ = made
            yield site, Place(last.index, self._axes(step), self._piece(weight))
            if weight.endswith((".W_O", "mlp.W_out")) and (read := product.vertices):
                yield from self._read(step, read[-1])

    def _normed(self, step: Step) -> Vertex | None:
        """The product with a norm's weight, and the sum with its bias."""
        names = {weight.name.rpartition(".")[2]: weight.name for weight in step.weights.values()}
        if "w" not in names:
            return None
        product = self._graph.of(self._tensor(names["w"]), "MUL")
        return self._graph.of(self._tensor(names["b"]), *BIASES) if "b" in names and product else product

    def _product(self, step: Step) -> tuple[str, Vertex, Vertex] | None:
        """The one matrix of a step, its product, and what that is once a bias is added."""
        names = [weight.name for weight in step.weights.values()]
        matrices = [name for name in names if name.rpartition(".")[2].startswith("W_")]
        product = self._graph.of(self._tensor(matrices[0]), *PRODUCTS) if len(matrices) == 1 else None
        if product is None:
            return None
        biases = [name for name in names if name.rpartition(".")[2].startswith("b_")]
        last = self._graph.of(self._tensor(biases[0]), *BIASES) if biases else product
        return (matrices[0], product, last) if last is not None else None

    def _shown(self, step: Step, last: Vertex) -> Vertex | None:
        """The vertex that is the site itself: what a matrix and its bias made, or, where it is clipped, what is left of it."""
        record, name = step.record, step.equation.name
        if not isinstance(record, Attention) or name == "out":
            return last
        if name not in ("q", "k", "v") or (name == "v" and record.v_norm is not None):
            return None
        if record.clip is None:
            return last
        return next((vertex for vertex in self._graph.after(last.index) if vertex.op == "CLAMP"), None)

    def _read(self, step: Step, index: int) -> Iterator[tuple[str, Place]]:
        """What the last matrix of a branch reads, under all of its names."""
        at = step.site.removesuffix(".out")
        if not isinstance(step.record, Attention):
            yield f"{at}.post", Place(index, "token d_mlp")
            return
        yield f"{at}.z_post", Place(index, "token (head d_value)")
        if step.record.gate is None and step.record.z_norm is None:
            yield f"{at}.z", Place(index, "token (head d_value)")

    def _experts(self, step: Step) -> Iterator[tuple[str, Place]]:
        """The router's logits, the chosen experts, and their weights."""
        name, at = step.equation.name, step.site.rpartition(".")[0]
        down = self._graph.of(self._tensor(f"{at}.W_out"), "MUL_MAT_ID")
        if name == "router":
            made = self._graph.of(self._tensor(f"{at}.W_router"), *PRODUCTS)
            bias = (
                self._graph.of(self._tensor(f"{at}.b_router"), *BIASES)
                if f"{at}.b_router" in self._weights(step)
                else made
            )
            if bias is not None:
                yield step.site, Place(bias.index, "token expert")
        elif name == "expert_index" and down is not None and len(down.vertices) > 1:
            yield step.site, Place(down.vertices[-1], "token choice")
        elif name == "router_weights" and down is not None:
            weighted = next((v for v in self._graph.after(down.index) if v.op == "MUL" and len(v.vertices) == 2), None)
            if weighted is not None:
                yield step.site, Place(self._graph.source(weighted.vertices[1]).index, "token choice")

    @staticmethod
    def _weights(step: Step) -> set[str]:
        return {weight.name for weight in step.weights.values()}

    def by_caches(self) -> dict[str, Place]:
        """q and k as they meet, and the pattern."""
        found: dict[str, Place] = {}
        for layer, block in enumerate(self._spec.blocks):
            if block.attention is not None:
                found |= dict(self._kernel(layer, f"blocks.{layer}.attn."))
        return {
            site: place
            for site, place in found.items()
            if site in self._steps and self._graph.vertices[place.vertex].op not in PARTS
        }

    def _kernel(self, layer: int, at: str) -> Iterator[tuple[str, Place]]:
        cache = f"cache_k_l{layer}"
        stored = self._graph.of(cache, "SET_ROWS")
        if stored is not None:
            yield at + "rot_k", Place(self._graph.source(stored.vertices[0]).index, "token (kv_head d_head)")
        for vertex in self._graph.vertices:
            if vertex.op not in ("MUL_MAT", "FLASH_ATTN_EXT") or len(vertex.vertices) < 2:
                continue
            key, query = vertex.vertices[:2] if vertex.op == "MUL_MAT" else vertex.vertices[1::-1]
            if self._graph.rests_on(key, cache):
                yield at + "rot_q", self._query(query)
                if vertex.op == "MUL_MAT" and (pattern := self._pattern(vertex.index)):
                    yield at + "pattern", Place(pattern.index, "head query key")
                return

    def _query(self, index: int) -> Place:
        """The query; where a scale stands between it and the product, it is undone."""
        vertex, divisor = self._graph.source(index), 1.0
        if vertex.op == "SCALE":
            divisor = struct.unpack("<f", struct.pack("<i", vertex.params[0]))[0]
        return Place(vertex.index, "token (head d_head)", divisor=divisor)

    def _pattern(self, index: int) -> Vertex | None:
        for vertex in self._graph.after(index):
            if vertex.op == "SOFT_MAX":
                return vertex
            if vertex.op in ("SCALE", "UNARY", "ADD", "MUL"):
                return self._pattern(vertex.index)
        return None

    def by_parts(self) -> dict[str, Place]:
        """Embeddings, contributions of branches, and the sums of the stream: the last vertex that is made of just these parts."""
        last: dict[Parts, int] = {}
        for index, parts in enumerate(self._parts()):
            vertex = self._graph.vertices[index]
            copies = vertex.op in LOOKS or (vertex.op == "GET_ROWS" and vertex.vertices)
            if parts and not copies:
                last[parts] = index
        found: dict[str, Place] = {}
        made: dict[str, Parts] = {}
        for site, step in self._steps.items():
            if isinstance(step.record, Embedding | Positions):
                made[site] = frozenset([site])
            elif isinstance(step.record, Branch):
                made[site] = frozenset([site])
                if isinstance(step.record.module, Moe) and step.record.post is None and step.record.multiplier == 1.0:
                    made[step.inputs[0]] = made[site]
            elif isinstance(step.record, Sum):
                made[site] = frozenset[str]().union(*(made[term] for term in step.terms))
            else:
                continue
            for name in (site, *(name for name in step.inputs if name in made and name.endswith("mlp.out"))):
                if made[name] in last:
                    found[name] = Place(last[made[name]], "token d_model")
        return found

    def _parts(self) -> list[Parts]:
        """Of every vertex, what it is the sum of; nothing where it is no such sum."""
        found: list[Parts] = []
        for vertex in self._graph.vertices:
            found.append(self._begins(vertex) or self._goes_on(vertex, [found[index] for index in vertex.vertices]))
        return found

    def _begins(self, vertex: Vertex) -> Parts:
        """Where a contribution enters: a look-up, or the last matrix of a branch."""
        normed = self._spec.embed.norm  # BLOOM: the stream begins after it
        if vertex.op == "GET_ROWS" and "inp_tokens" in vertex.leaves and normed is None:
            return frozenset(["embed"])
        if normed and f"token_embd_norm.{'bias' if normed.bias else 'weight'}" in vertex.leaves:
            return frozenset(["embed"])
        if vertex.op == "GET_ROWS" and "position_embd.weight" in vertex.leaves:
            return frozenset(["pos_embed"])
        if vertex.op in PRODUCTS:
            for leaf in vertex.leaves:
                if ends := re.fullmatch(r"blk\.(\d+)\.(attn_output|ffn_down\w*)\.weight", leaf):
                    return frozenset([f"blocks.{ends[1]}.{'attn' if ends[2] == 'attn_output' else 'mlp'}_out"])
        return frozenset()

    @staticmethod
    def _goes_on(vertex: Vertex, read: list[Parts]) -> Parts:
        """A sum is made of what its terms are made of; a scale, a bias, a choice of rows leave it; a norm leaves a single contribution."""
        if not read:
            return frozenset()
        if vertex.op in BIASES:
            return frozenset[str]().union(*read) if all(read) or vertex.op == "ADD_ID" else frozenset()
        if vertex.op in NORMS:
            return read[0] if len(read[0]) == 1 and next(iter(read[0])).startswith("blocks.") else frozenset()
        if vertex.op in ("MUL", "SCALE", "GET_ROWS") or vertex.op in LOOKS:
            return read[0]
        return frozenset()

    def _tensor(self, weight: str) -> str:
        """The file's name of a schema weight; `.` where it has none."""
        try:
            return native_of(self._family, stored_as(self._spec, weight))[1][0]
        except UnsupportedModelError:  # no row: no tensor, and so no vertex
            return "."

    def _piece(self, weight: str) -> int:
        return native_of(self._family, weight)[0].piece

    def _axes(self, step: Step) -> str:
        """As the stored matrix has them, without those of its other side."""
        if isinstance(step.record, Norm):
            return f"token ({' '.join(step.axes[1:])})"
        if step.axes == ("token", "d_model"):
            return "token d_model"
        matrix = next(w.name for w in step.weights.values() if w.name.rpartition(".")[2].startswith("W_"))
        own = [
            group
            for group in re.findall(r"\([^)]*\)|\S+", native_of(self._family, matrix)[0].axes)
            if group != "d_model"
        ]
        return " ".join(["token", *own])
