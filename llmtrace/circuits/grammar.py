"""How the field writes a circuit down. **Node**: `input`, a head `a3.h1`, an MLP `m3`, `logits`; **edge**: `a0.h0->a1.h0<k>`, what one
node writes into the residual stream and another reads: a head by its q, k or v, every other node by the one input that it has.

    edge := node "->" ( head "<" ("q"|"k"|"v") ">" | mlp | "logits" )        node := "input" | head | mlp
    head := "a" INT ".h" INT          mlp := "m" INT

The names are those of auto-circuit and of the MIB benchmark (Mueller et al. 2025, arXiv 2504.13151).
"""

from __future__ import annotations

import re
from typing import Literal

from attrs import frozen

from llmtrace.errors import CircuitError, shown

Kind = Literal["input", "head", "mlp", "logits"]
Reads = Literal["", "q", "k", "v"]
NODE = re.compile(r"(?:(input)|a(0|[1-9]\d{0,4})\.h(0|[1-9]\d{0,4})|m(0|[1-9]\d{0,4})|(logits))", re.ASCII)
EDGE = re.compile(r"([^<>-]+)->([^<>-]+)(?:<([qkv])>)?", re.ASCII)


@frozen
class Node:
    """A part of the model that writes into the residual stream, or reads it."""

    kind: Kind
    """`input` is the embedding, `logits` the end."""
    layer: int | None = None
    """Of a head or an MLP."""
    head: int | None = None
    """Of a head."""

    @classmethod
    def parse(cls, text: str) -> Node:
        """`a3.h1` as a node. Raises `CircuitError`.

        >>> Node.parse("a3.h1").layer, str(Node.parse("m2"))
        (3, 'm2')
        """
        found = NODE.fullmatch(text)
        if found is None:
            raise CircuitError(f"{shown(text)} is no node: there are input, a3.h1 (a head), m3 (an MLP) and logits.")
        if found[2] is not None:
            return cls("head", int(found[2]), int(found[3]))
        if found[4] is not None:
            return cls("mlp", int(found[4]))
        return cls("logits" if found[5] else "input")

    def precedes(self, other: Node, *, parallel: bool = False) -> bool:
        """Whether what it writes can reach the other; heads of a layer precede its MLP, unless they stand in `parallel`."""
        if self.kind == "logits" or other.kind == "input":
            return False
        if self.kind == "input" or other.kind == "logits":
            return True
        before, after = (node.layer or 0 for node in (self, other))
        return before < after or (before == after and not parallel and (self.kind, other.kind) == ("head", "mlp"))

    def __str__(self) -> str:
        """`a3.h1`"""
        return {"head": f"a{self.layer}.h{self.head}", "mlp": f"m{self.layer}"}.get(self.kind, self.kind)


@frozen
class Edge:
    """What one node reads of another."""

    source: Node
    target: Node
    reads: Reads = ""
    """By which input a head reads it; empty for other nodes, which have one."""

    def __attrs_post_init__(self) -> None:
        if (self.target.kind == "head") != bool(self.reads):
            need = "says by which input: <q>, <k> or <v>" if self.target.kind == "head" else "has no <q>, <k> or <v>"
            raise CircuitError(f"{self}: an edge into {self.target} {need}.")
        if not self.source.precedes(self.target):
            raise CircuitError(f"{self} runs backwards: {self.source} writes after {self.target} has read.")

    @classmethod
    def parse(cls, text: str) -> Edge:
        """`a0.h0->a1.h0<k>` as an edge. Raises `CircuitError`.

        >>> str(Edge.parse("a0.h0->a1.h0<k>").source)
        'a0.h0'
        """
        found = EDGE.fullmatch(text)
        if found is None:
            raise CircuitError(f"{shown(text)} is no edge: write a0.h0->a1.h0<k>, m0->m1 or a0.h0->logits.")
        reads: Reads = found[3] or ""  # type: ignore[assignment]  # the pattern lets nothing else through
        return cls(Node.parse(found[1]), Node.parse(found[2]), reads)

    def __str__(self) -> str:
        """`a0.h0->a1.h0<k>`"""
        return f"{self.source}->{self.target}" + (f"<{self.reads}>" if self.reads else "")
