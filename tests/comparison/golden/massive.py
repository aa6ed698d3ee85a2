"""A model with massive activations, in int4: as ONNX Runtime's builder packs it, and as integers that the graph widens itself.

One channel of the stream is many times as large as the others, and matrices hardly read it: rounded in blocks, its neighbours are what
is lost.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.comparison.golden.models import change, read, write_checkpoint

CHANNEL, SIZE, READ = 7, 8.0, 0.02
"""Which one, how large it is (the others are about 0.15), and how much of it is read."""
READING = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "up_proj.weight", "lm_head.weight")


def write_massive(directory: Path, style: str) -> Path:
    """`model.onnx` of int4 weights, in `directory`."""
    from llmtrace_onnxruntime.writing import write_onnx

    checkpoint = write_checkpoint("llama", directory)
    change(checkpoint, _huge)
    return write_onnx(read(checkpoint), directory / "model.onnx", "int4", style)


def _huge(tensors: dict[str, np.ndarray]) -> None:
    tensors["model.embed_tokens.weight"][:, CHANNEL] = SIZE
    for name, array in tensors.items():
        if name.endswith(READING):
            array[:, CHANNEL] *= READ


def set_accuracy(path: Path, level: int) -> None:
    """The accuracy level of every product of a graph."""
    model = onnx.load(path)
    products = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    assert products
    for node in products:
        node.attribute.append(helper.make_attribute("accuracy_level", level))
    onnx.save(model, path)


def widen(path: Path) -> None:
    """Every `MatMulNBits` as a `DequantizeLinear` and a `MatMul` with the same numbers."""
    model = onnx.load(path)
    graph = model.graph
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for place, node in reversed(list(enumerate(graph.node))):
        if node.op_type != "MatMulNBits":
            continue
        size = {each.name: each.i for each in node.attribute}
        rows, width, block = size["N"], size["K"], size["block_size"]
        flat = held[node.input[1]].reshape(rows, -1)
        levels = np.stack([flat & 15, flat >> 4], -1).reshape(rows, width).T
        scales = np.ascontiguousarray(held[node.input[2]].reshape(rows, width // block).T)
        name = f"matrix {place}"
        graph.initializer.extend([
            _four(f"{name} levels", levels), numpy_helper.from_array(scales, f"{name} scales"), _four(f"{name} zeros", np.full(scales.shape, 8)),
        ])  # fmt: skip
        inputs = [f"{name} {each}" for each in ("levels", "scales", "zeros")]
        graph.node.insert(place, helper.make_node("DequantizeLinear", inputs, [name], axis=0, block_size=block))
        graph.node.insert(place + 1, helper.make_node("MatMul", [node.input[0], name], list(node.output), node.name))
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    onnx.save(model, path)


def _four(name: str, numbers: np.ndarray) -> onnx.TensorProto:
    flat = np.ascontiguousarray(numbers).astype(np.uint8).ravel()
    return helper.make_tensor(name, TensorProto.UINT4, numbers.shape, (flat[::2] | flat[1::2] << 4).tobytes(), raw=True)
