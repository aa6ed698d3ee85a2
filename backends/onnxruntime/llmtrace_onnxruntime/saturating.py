"""Sums that saturate. On x86 processors without VNNI, ONNX Runtime adds two neighbouring products of a uint8 and an int8 in 16 bits; what these do
not hold is cut off, without a word. A file so has other logits on one processor than on another.

The same matrix as uint8, 128 higher with its zero, makes the same sums in kernels that never saturate: what ONNX Runtime itself does where
`session.x64quantprecision` is set, but only at the optimisation levels `extended` and `all`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import numpy as np
import onnx
import onnxruntime
from attrs import frozen
from onnx import TensorProto, helper, numpy_helper

from llmtrace.schema.sites import Array
from llmtrace_onnxruntime.flow import REARRANGING, Flow, reading
from llmtrace_onnxruntime.int16_sums import can_saturate

FACTORS: Mapping[str, tuple[int, int]] = {
    "MatMulInteger": (1, 3),
    "MatMulIntegerToFloat": (1, 5),
    "DynamicQuantizeMatMul": (1, 3),
}
"""Products of whole numbers: where each reads its matrix, and its matrix's zero."""
MOVES = REARRANGING - {"Cast"}
"""Operators that leave every number as it is."""
SUFFIX = "/unsigned"
"""What the names of values end with that were made uint8."""
MIDDLE = 128
SILENT = 4
"""ONNX Runtime's level of messages at which it says nothing: what is wrong is raised."""


@frozen(eq=False)
class Product:
    """A product of uint8 by an int8 matrix, some sum of which can saturate."""

    node: onnx.NodeProto
    matrix: str
    zero: str
    """Empty where there is none."""


@cache
def saturates(*providers: str) -> bool:
    """Whether sums saturate here: measured, by a product whose sum is known."""
    width = 8
    matrix = numpy_helper.from_array(np.full((width, width), 127, np.int8), "matrix")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "matrix"], ["y"])], "sum",
        [value("x", TensorProto.UINT8, [1, width])], [value("y", TensorProto.INT32, [1, width])], [matrix],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level, quiet.intra_op_num_threads = SILENT, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), quiet, providers=list(providers))
    (found,) = session.run(None, {"x": np.full((1, width), 255, np.uint8)})
    return bool((found != 255 * 127 * width).any())


def cut_here(
    graph: onnx.GraphProto, tensors: Mapping[str, Array], providers: Sequence[str], known: dict[str, bool] | None = None
) -> tuple[Product, ...]:
    """The products of a graph of which a prompt can make a sum saturate on this processor. `tensors` are the numbers of its weights; `known`, those
    of which it was told before whether they can, is added to.
    """
    if not any(node.op_type in FACTORS for node in graph.node) or not saturates(*providers):
        return ()
    return tuple(saturable(graph, tensors, {} if known is None else known))


def saturable(graph: onnx.GraphProto, tensors: Mapping[str, Array], known: dict[str, bool]) -> Iterator[Product]:
    """The products of which one could, on a processor whose sums do."""
    flow = Flow(graph)
    for node in graph.node:
        if node.op_type in FACTORS:
            matrix, zero = (reading(node, place) for place in FACTORS[node.op_type])
            rounds = node.op_type == "DynamicQuantizeMatMul" or _is_uint8(flow, node.input[0], tensors)
            if not rounds or (zero and (zero not in tensors or tensors[zero].dtype != np.int8)):
                continue
            levels = flow.origin(matrix, MOVES)
            if levels in tensors and matrix not in known:
                known[matrix] = can_saturate(tensors[levels], moved=levels != matrix)
            if known.get(matrix):
                yield Product(node, matrix, zero)


def notes(found: Sequence[Product], moved: float) -> Iterator[str]:
    """That sums are cut off, what that does to logits, and how not to. `moved`: by how much, relative, on the prompt of opening."""
    if found:
        yield (
            f"this processor cuts off sums of int8 products at 16 bits; products in which a prompt can reach that: {len(found)}. On a short one "
            f"logits move by {moved:.2g} times the largest. saturating=false sums all, as processors with VNNI do; an app does by "
            "session.x64quantprecision=1, or with a file of uint8 weights or made with reduce_range"
        )


def read_unsigned(
    graph: onnx.GraphProto, tensors: Mapping[str, Array], providers: Sequence[str], known: dict[str, bool] | None = None
) -> None:
    """Let the products of a graph read their matrices as uint8 where a sum can saturate. Those whose data lie outside of the graph have the
    old data there, and a session must be handed the new ones, as `unsigned` makes them. `known` as in `cut_here`.
    """
    held = {tensor.name: tensor for tensor in graph.initializer}
    made: dict[str, onnx.TensorProto] = {}
    moved: dict[str, list[onnx.NodeProto]] = {}
    for each in cut_here(graph, tensors, providers, known):
        matrix, zero = FACTORS[each.node.op_type]
        each.node.input.extend([""] * (zero + 1 - len(each.node.input)))
        for place, name in ((matrix, each.matrix), (zero, each.zero)):
            each.node.input[place] = name + SUFFIX
            if name and name not in tensors:
                moved.setdefault(name, _raised(name))
            else:
                made[name] = _proto(name, held.get(name), tensors)
    graph.initializer.extend(made.values())
    if moved:
        graph.initializer.append(numpy_helper.from_array(np.array(MIDDLE, np.int32), f"{SUFFIX} by"))
        nodes = [
            new for node in graph.node for new in (node, *(n for name in node.output for n in moved.get(name, ())))
        ]
        copied = onnx.GraphProto()
        copied.node.extend(nodes)
        del graph.node[:]
        graph.node.extend(copied.node)


def is_unsigned(name: str, tensors: Mapping[str, Array]) -> bool:
    """Whether that is the name of a matrix that was made uint8."""
    return name.endswith(SUFFIX) and name not in tensors


def unsigned(name: str, tensors: Mapping[str, Array]) -> Array:
    """A matrix that was made uint8, by its name in the graph."""
    return _higher(tensors[name.removesuffix(SUFFIX)])


def _higher(levels: Array) -> Array:
    """int8 as the uint8 that are 128 higher."""
    return np.asarray(levels.view(np.uint8) ^ np.uint8(MIDDLE))


def _proto(name: str, held: onnx.TensorProto | None, tensors: Mapping[str, Array]) -> onnx.TensorProto:
    """What is made uint8 of a tensor, or of no zero at all; of one that lies elsewhere, it says the same place."""
    if held is None or held.data_location != TensorProto.EXTERNAL:
        return numpy_helper.from_array(_higher(tensors[name] if name else np.zeros((), np.int8)), name + SUFFIX)
    proto = TensorProto()
    proto.CopyFrom(held)
    proto.name, proto.data_type = name + SUFFIX, TensorProto.UINT8
    return proto


def _raised(name: str) -> list[onnx.NodeProto]:
    """The same of a value that nodes make."""
    node = helper.make_node
    return [
        node("Cast", [name], [f"{name}{SUFFIX} wide"], to=TensorProto.INT32),
        node("Add", [f"{name}{SUFFIX} wide", f"{SUFFIX} by"], [f"{name}{SUFFIX} higher"]),
        node("Cast", [f"{name}{SUFFIX} higher"], [name + SUFFIX], to=TensorProto.UINT8),
    ]


def _is_uint8(flow: Flow, name: str, tensors: Mapping[str, Array]) -> bool:
    """Whether a value is rounded to uint8 as it comes, or made of rows of such a table; perhaps moved since."""
    maker = flow.makers.get(flow.origin(name, MOVES))
    if maker is None:
        return False
    if maker.op_type == "Gather":
        return maker.input[0] in tensors and tensors[maker.input[0]].dtype == np.uint8
    return bool(maker.op_type == "DynamicQuantizeLinear")
