"""A graph in one piece. **Branch**: a graph inside a node; **function**: a graph that a model gives a name. What is inside either cannot
be an output, so functions are put in place of their calls, and of two branches that an input chooses between — the «merged» decoders of
optimum, with and without a cache — the one that is taken with an empty cache in place of the choice. The operators stay the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx.inliner import inline_local_functions

from llmtrace.errors import ModelOpenError
from llmtrace_onnxruntime.known import said

MERGED = "the graph has a branch with a cache and one without: the one without is run"


def in_one_piece(proto: onnx.ModelProto, path: Path) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The model without functions, without a choice that an input makes, and without inputs that nothing reads; and notes.

    Raises `ModelOpenError` where functions cannot be put in place.
    """
    if proto.functions:
        try:
            proto = inline_local_functions(proto)
        except Exception as error:  # the C++ half of onnx raises RuntimeError, and whatever it has
            raise ModelOpenError(
                f"{path}: its functions cannot be put in place: {said(error)}. Export it again."
            ) from error
    notes = []
    while (at := _choice(proto.graph)) is not None:
        _take(proto.graph, at)
        notes = [MERGED]
    if notes:
        _drop_unread(proto.graph)
    return proto, tuple(notes)


def _choice(graph: onnx.GraphProto) -> int | None:
    """The place of the first `If` whose condition the caller feeds."""
    fed = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    return next((at for at, node in enumerate(graph.node) if node.op_type == "If" and fed & set(node.input[:1])), None)


def _take(graph: onnx.GraphProto, at: int) -> None:
    """Put the branch that is taken where the condition is false in place of a choice."""
    choice = graph.node[at]
    branch = next(attribute.g for attribute in choice.attribute if attribute.name == "else_branch")
    made = {name for node in branch.node for name in node.output}
    names = {}
    extra = []
    for inner, outer in zip((value.name for value in branch.output), choice.output, strict=True):
        if inner in made and inner not in names:
            names[inner] = outer
        else:  # a branch may hand on what it was given, or one value twice
            extra.append(onnx.helper.make_node("Identity", [names.get(inner, inner)], [outer]))
    nodes = [*graph.node[:at], *_renamed(branch.node, names), *extra, *graph.node[at + 1 :]]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    weights = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in branch.initializer]
    infos = [
        onnx.ValueInfoProto.FromString(info.SerializeToString()) for info in branch.value_info if info.name not in names
    ]
    del graph.node[:]
    graph.node.extend(kept)
    graph.initializer.extend(weights)
    graph.value_info.extend(infos)


def _renamed(nodes: Sequence[onnx.NodeProto], names: dict[str, str]) -> list[onnx.NodeProto]:
    """Copies that call a branch's outputs what the choice calls them."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    for node in copies:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
        for place, name in enumerate(node.output):
            node.output[place] = names.get(name, name)
        for attribute in node.attribute:
            for inside in (attribute.g, *attribute.graphs):
                if inside.node:
                    renamed = _renamed(list(inside.node), names)
                    del inside.node[:]
                    inside.node.extend(renamed)
    return copies


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Take away the inputs that only the other branch read."""
    read = _read(graph)
    kept = [value for value in graph.input if value.name in read]
    copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in kept]
    del graph.input[:]
    graph.input.extend(copies)


def _read(graph: onnx.GraphProto) -> set[str]:
    """The names that nodes read, those inside of branches too, and the outputs."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            for inside in (attribute.g, *attribute.graphs):
                if inside.node:
                    names |= _read(inside)
    return names
