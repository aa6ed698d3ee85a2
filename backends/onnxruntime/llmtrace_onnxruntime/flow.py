"""Who makes and who reads each value of a graph. **Constant**: what follows from weights alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import onnx

REARRANGING = frozenset({"Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Expand"})
"""Operators that change no number of the first thing that they read, but perhaps its type or shape."""


class Flow:
    """The nodes of one graph by the values that they read and make."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.makers = {name: node for node in graph.node for name in node.output if name}
        self.readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name:
                    self.readers.setdefault(name, []).append((node, place))
        self._constant = {tensor.name for tensor in graph.initializer}
        for node in graph.node:  # in the order of computation
            if all(name in self._constant for name in node.input if name) and not node.op_type.startswith("Random"):
                self._constant.update(node.output)

    def constant(self, name: str) -> bool:
        """Whether a value follows from weights alone."""
        return name in self._constant

    def arrivals(
        self, name: str, through: Collection[str] = REARRANGING, beyond: Collection[str] = ()
    ) -> Iterator[tuple[onnx.NodeProto, int]]:
        """The nodes that read a value, and the places where: also after operators of `through` that read it at place 0.

        With `beyond`, after every operator at any place, but for these.
        """
        todo, seen = [name], {name}
        while todo:
            for node, place in self.readers.get(todo.pop(), ()):
                yield node, place
                goes_on = node.op_type not in beyond if beyond else node.op_type in through and place == 0
                if goes_on:
                    new = [made for made in node.output if made and made not in seen]
                    seen.update(new)
                    todo.extend(new)

    def origin(self, name: str, through: Collection[str] = REARRANGING) -> str:
        """Back from a value over operators of `through`."""
        while (node := self.makers.get(name)) is not None and node.op_type in through and node.input:
            name = node.input[0]
        return name


def reads(node: onnx.NodeProto) -> list[str]:
    """What a node reads, graphs inside of it too."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            own = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
            for inner in graph.node:
                names.extend(name for name in reads(inner) if name not in own)
                own.update(inner.output)
            names.extend(value.name for value in graph.output if value.name not in own)
    return names


def reading(node: onnx.NodeProto, place: int) -> str:
    """What a node reads at a place; empty where it reads less."""
    return node.input[place] if place < len(node.input) else ""


def dims(value: onnx.ValueInfoProto) -> tuple[int | str, ...] | None:
    """A value's declared shape: lengths, names of lengths, or '' for a length without a name, which some exporters write as -1; None where
    it has none.
    """
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param for dim in kind.shape.dim
    )


def attribute(node: onnx.NodeProto, name: str, default: float | str | Sequence[int] | None = None) -> object:
    """An attribute's value."""
    found = next((each for each in node.attribute if each.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)
