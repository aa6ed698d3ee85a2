"""The graph for reading alone. **Spelled**: operators that hide a matrix, a bias or a rounding written as those that a decoder is read in.

What runs, and what edits run, is the graph as it is: what is spelled otherwise makes the same values in another way, perhaps without their
rounding.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from attrs import field, frozen

from llmtrace_onnxruntime.flow import Flow, reads
from llmtrace_onnxruntime.integers import looked_up, product
from llmtrace_onnxruntime.packed import attention_parts


@frozen(eq=False)
class Spelled:
    """A copy of a graph, and what is known of its constants."""

    model: onnx.ModelProto
    shapes: Mapping[str, tuple[int, ...]] = field(factory=dict)
    """Of the initialisers and constants that the graph had, and of those that were widened."""
    rounding: frozenset[str] = frozenset()
    """Matrices before which the graph rounds to 8 bits, one scale for all."""


def spelled(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> Spelled:
    """The graph in operators that are read; itself, where it has no others. `shapes` are those of its initialisers and constants."""
    flow = Flow(model.graph)
    nodes: list[onnx.NodeProto] = []
    more: dict[str, tuple[int, ...]] = {}
    rounding = set()
    instead: dict[str, tuple[onnx.NodeProto, ...]] = {}
    for node in model.graph.node:
        for wide in (product(flow, node), looked_up(flow, node, shapes)):
            if wide is not None:
                instead[wide.makes] = wide.nodes
                more |= {wide.matrix: shapes[wide.levels]} if wide.levels in shapes else {}
                rounding |= {wide.matrix} if wide.rounds else set()
    for node in model.graph.node:
        nodes += instead.get(node.output[0]) or attention_parts(node, shapes)
    if len(nodes) == len(model.graph.node) and not instead:
        return Spelled(model, shapes)
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    made = {name for node in nodes for name in node.output}
    outputs = [value for value in model.graph.output if value.name in made]
    del copied.graph.node[:], copied.graph.output[:]
    copied.graph.output.extend(outputs)
    copied.graph.node.extend(_read(nodes, {value.name for value in outputs}))
    return Spelled(copied, {**shapes, **more}, frozenset(rounding))


def _read(nodes: list[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    """The nodes on which what is wanted rests, each after those that it reads; else in their order."""
    makers = {name: node for node in nodes for name in node.output if name}
    needed, waiting = set[str](), list(wanted)
    while waiting:
        name = waiting.pop()
        if name in makers and name not in needed:
            needed.update(makers[name].output)
            waiting += reads(makers[name])
    left = [node for node in nodes if needed.intersection(filter(None, node.output))]
    kept, there = list[onnx.NodeProto](), set[str]()
    while left:
        late = []
        for node in left:
            if all(name in there or name not in makers for name in reads(node)):
                kept.append(node)
                there.update(node.output)
            else:
                late.append(node)
        left = late
    return kept
