"""The numbers that stand in a graph: initialisers, and what is computed from them alone; the matrices, biases and tables among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from attrs import evolve, frozen

from llmtrace.dataflow.graph import Graph, Vertex
from llmtrace.dataflow.segments import Line
from llmtrace.dataflow.unpacking import OPERANDS, WHOLE, unpacked_experts, unpacked_matrix, unpacked_table
from llmtrace.errors import UnsupportedModelError
from llmtrace.schema.sites import Array

Compute: TypeAlias = Callable[[Sequence[str]], Mapping[str, Array]]
"""Values that no input changes, as the runtime computes them."""


@frozen(eq=False)
class Source:
    """Where a weight comes from."""

    constant: str
    """The constant that holds it, perhaps with others."""
    read: Callable[[], Array]
    """Makes it, in the schema's shape."""
    packed: str = ""
    """The type of its numbers, where they are packed (`int4`)."""
    operands: str = ""
    """What the other factor of a product is rounded to."""

    def then(self, change: Callable[[Array], Array]) -> Source:
        """The same, and then changed."""
        return evolve(self, read=lambda: change(self.read()))


class Constants(Mapping[str, Array]):
    """Constant values of a graph by name, read or computed on access."""

    def __init__(self, graph: Graph, tensors: Mapping[str, Array], compute: Compute) -> None:
        self._graph = graph
        self._tensors = tensors
        self._compute = compute

    def __getitem__(self, name: str) -> Array:
        if name in self._tensors:
            return self._tensors[name]
        if name not in self._graph.constants:
            raise KeyError(name)
        return self._compute((name,))[name]

    def __contains__(self, name: object) -> bool:
        return name in self._graph.constants

    def __iter__(self) -> Iterator[str]:
        return iter(self._graph.constants)

    def __len__(self) -> int:
        return len(self._graph.constants)


def matrix(one: Line, constants: Mapping[str, Array]) -> Source:
    """What a line multiplies by, [in, out]."""
    packed = f"int{one.product.attributes.get('bits', 4)}" if one.product.op == "MatMulNBits" else ""
    rounds = packed and one.product.attributes.get("accuracy_level") == WHOLE
    operands = OPERANDS.get(int(one.product.attributes["block_size"]), "") if rounds else ""
    return Source(one.product.reads[1], lambda: _matrix(one, constants), packed, operands)


def _matrix(one: Line, constants: Mapping[str, Array]) -> Array:
    vertex = one.product
    if vertex.op == "MatMulNBits":
        return unpacked_matrix(vertex, constants).T
    found = constants[vertex.reads[1]]
    if vertex.attributes.get("transB"):
        found = found.T
    alpha = float(vertex.attributes.get("alpha", 1.0))
    if alpha != 1.0:
        found = np.asarray(found, np.float32) * np.float32(alpha)
    return found


def bias(one: Line, constants: Mapping[str, Array]) -> Source:
    """What a line that has a bias adds, [out]."""
    return Source(one.bias, lambda: _bias(one, constants))


def _bias(one: Line, constants: Mapping[str, Array]) -> Array:
    found = np.asarray(constants[one.bias]).reshape(-1)
    beta = float(one.product.attributes.get("beta", 1.0))
    return found if one.product.op != "Gemm" or beta == 1.0 else np.asarray(found, np.float32) * np.float32(beta)


def table(look_up: Vertex, constants: Mapping[str, Array]) -> Source:
    """The table of a look-up, [row, channel]."""
    packed = f"int{look_up.attributes.get('bits', 4)}" if look_up.op == "GatherBlockQuantized" else ""
    return Source(look_up.reads[0], lambda: _table(look_up, constants), packed)


def _table(look_up: Vertex, constants: Mapping[str, Array]) -> Array:
    if look_up.op == "GatherBlockQuantized":
        return unpacked_table(look_up, constants)
    found = constants[look_up.reads[0]]
    axis = int(look_up.attributes.get("axis", 0))
    if found.ndim != 2 or axis != 0:
        raise UnsupportedModelError(
            f"The table of the embedding has the shape {list(found.shape)}, looked up along axis {axis}."
        )
    return found


def experts_matrix(vertex: Vertex, place: int, constants: Mapping[str, Array]) -> Source:
    """The matrices of a `MoE` or `QMoE` at a place, [expert, out, in]."""
    packed = f"int{vertex.attributes.get('expert_weight_bits', 4)}" if vertex.op == "QMoE" else ""
    return Source(vertex.reads[place], lambda: unpacked_experts(vertex, place, constants), packed)
