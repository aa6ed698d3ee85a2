"""What ONNX Runtime's optimiser makes of a graph that changes its numbers by more than the order of a sum does.

**Joined**: a matrix of few bits in blocks that the graph widens (`DequantizeLinear`) and multiplies by (`MatMul`) becomes one `MatMulNBits`, of the
accuracy level that a session has for it: 4, if nobody says otherwise (`session.qdq_matmulnbits_accuracy_level`). Its kernel rounds what it
multiplies the matrix by to 8 bits, though the graph says nothing of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
from onnx import TensorProto

from llmtrace.dataflow.reading.model import ReadModel
from llmtrace.dataflow.unpacking import OPERANDS, WHOLE
from llmtrace_onnxruntime.flow import Flow, attribute
from llmtrace_onnxruntime.fusions import WIDENS
from llmtrace_onnxruntime.options import OnnxRuntimeOptions

JOINING = ("extended", "all")
"""Levels of optimisation that join."""
FEW = frozenset(
    number
    for name in ("UINT4", "INT4", "UINT2", "INT2", "UINT8", "INT8")
    if (number := getattr(TensorProto, name, None))
)
"""Types of the numbers of a matrix that is joined."""


def widened(read: ReadModel, options: OnnxRuntimeOptions) -> dict[str, str]:
    """Matrices in blocks before which nothing is rounded, whatever a graph asks for: without prepacking they are widened to float32."""
    if options.prepacking:
        return {}
    return {each.constant: "" for each in read.weights.values() if each.operands in OPERANDS.values()}


def notes(read: ReadModel, joins: Mapping[str, str]) -> Iterator[str]:
    """That activations are rounded to 8 bits, why, and how not to."""
    named = {source.operands: source.constant in joins for source in read.weights.values() if source.operands}
    for kind, by_optimiser in named.items():
        if kind not in OPERANDS.values():
            continue
        size = next(block for block, name in OPERANDS.items() if name == kind)
        if by_optimiser:
            yield (
                f"the optimiser joins DequantizeLinear and MatMul, and the product rounds activations to 8 bits in blocks of {size}: "
                "optimization=basic keeps them apart, and multiplies in float32"
            )
        else:
            yield (
                f"the file asks for accuracy_level {WHOLE}: activations are rounded to 8 bits in blocks of {size} before they are multiplied. "
                "prepacking=false multiplies in float32, and so does an export with accuracy_level 1"
            )


def joined(graph: onnx.GraphProto, options: OnnxRuntimeOptions) -> dict[str, str]:
    """Matrices, as the graph has them widened, to what the other factor is rounded to under these settings; empty where nothing is joined.

    The kernel of whole numbers needs its matrix in a layout of its own, so without prepacking nothing is rounded.
    """
    if options.optimization not in JOINING or not options.prepacking:
        return {}
    flow = Flow(graph)
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type != WIDENS or kinds.get(node.input[0]) not in FEW or attribute(node, "axis", 1) != 0:
            continue
        block = attribute(node, "block_size")
        operands = OPERANDS.get(block, "") if isinstance(block, int) else ""
        if operands and all(
            reader.op_type == "MatMul" and place == 1 for reader, place in flow.readers.get(node.output[0], ())
        ):
            found[node.output[0]] = operands
    return found
