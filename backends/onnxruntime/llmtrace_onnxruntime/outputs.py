"""Which of a graph's outputs is the logits."""

from __future__ import annotations

import onnx

from llmtrace.errors import UnsupportedModelError
from llmtrace_onnxruntime.choosing import decoder
from llmtrace_onnxruntime.flow import Flow, dims, reading
from llmtrace_onnxruntime.proto import Loaded

FLOATS = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
)
USUAL = "logits"


def outputs_of(loaded: Loaded, flow: Flow) -> tuple[str, int | None, tuple[str, ...]]:
    """The name of the logits, the length of their last axis where it is told, and the names of all other outputs.

    Raises `UnsupportedModelError` where no output, or more than one, can be the logits.
    """
    outputs = list(loaded.graph.output)
    likely = [value for value in outputs if _likely(loaded, flow, value)]
    if len(likely) > 1:
        said = decoder(loaded.genai).get("outputs")
        names = {said.get("logits") if isinstance(said, dict) else None, USUAL}
        likely = [value for value in likely if value.name in names] or likely
    if len(likely) != 1:
        named = ", ".join(value.name for value in likely or outputs)
        raise UnsupportedModelError(
            f"{loaded.path}: {'no output' if not likely else 'more than one output'} of {named} can be logits, of three axes with the "
            "vocabulary last: export a decoder with its head (a causal language model)."
        )
    shape = dims(likely[0])
    vocab = shape[-1] if shape and isinstance(shape[-1], int) else _width(loaded, flow, likely[0].name)
    return likely[0].name, vocab, tuple(value.name for value in outputs if value is not likely[0])


def _likely(loaded: Loaded, flow: Flow, value: onnx.ValueInfoProto) -> bool:
    """Whether it has three axes, or two, or does not say, and is made of no cache."""
    shape = dims(value)
    if value.type.tensor_type.elem_type not in FLOATS | {0} or (shape is not None and len(shape) not in {2, 3}):
        return False
    width = shape[-1] if shape and isinstance(shape[-1], int) else _width(loaded, flow, value.name)
    tables = {loaded.tensors.shapes[name][0] for name in _tables(loaded, flow)}
    return not tables or width is None or width in tables or value.name == USUAL


def _tables(loaded: Loaded, flow: Flow) -> set[str]:
    """The matrices that rows are looked up in."""
    return {
        reading(node, 0)
        for node in loaded.graph.node
        if node.op_type == "Gather" and len(loaded.tensors.shapes.get(reading(node, 0), ())) == 2
    }


def _width(loaded: Loaded, flow: Flow, name: str) -> int | None:
    """The last axis of a value that a matrix product, perhaps with a scale and a bias, makes."""
    through = {"Identity", "Cast", "Mul", "Div", "Tanh", "Add", "Slice", "Reshape"}
    node = flow.makers.get(flow.origin(name, through))
    if node is None:
        return None
    shapes = loaded.tensors.shapes
    if node.op_type in {"MatMul", "Gemm", "FusedMatMul"} and len(shapes.get(reading(node, 1), ())) == 2:
        transposed = any(each.name == "transB" and each.i for each in node.attribute)
        return shapes[node.input[1]][0 if transposed else 1]
    if node.op_type == "MatMulNBits":
        return next((each.i for each in node.attribute if each.name == "N"), None)
    return None
