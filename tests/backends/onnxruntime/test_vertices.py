"""The nodes of an ONNX file become vertices with their attributes, and what is one number is known from the file's shapes."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("llmtrace_onnxruntime")

from llmtrace_onnxruntime.vertices import read_graph


def model(nodes, initialisers=(), opset=17):
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [onnx.helper.make_tensor_value_info("x", kind, [None, 4])],
        [onnx.helper.make_tensor_value_info("y", kind, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in initialisers],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])


def read(proto):
    shapes = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    return read_graph(proto, shapes)


def test_a_file_is_read_with_its_attributes_and_inputs():
    node = onnx.helper.make_node("Gemm", ["x", "w"], ["y"], alpha=0.5, transB=1)
    graph = read(model([node], [("w", np.ones((2, 4), np.float32))]))
    (vertex,) = graph.vertices
    assert (vertex.op, vertex.reads, vertex.makes) == ("Gemm", ("x", "w"), ("y",))
    assert dict(vertex.attributes) == {"alpha": 0.5, "transB": 1}
    assert graph.inputs == ("x",)
    assert graph.initialisers == {"w"}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([("Identity", ["one"], ["n"])], True),
        ([("Sqrt", ["one"], ["m"]), ("Cast", ["m"], ["n"])], True),
        ([("Add", ["one", "many"], ["n"])], False),
        ([("Shape", ["x"], ["s"]), ("Gather", ["s", "zero"], ["n"])], True),
        ([("Shape", ["x"], ["n"])], False),
        ([("Shape", ["x"], ["s"]), ("Gather", ["s", "zero"], ["g"]), ("Mul", ["g", "zero"], ["n"])], True),
        ([("Identity", ["x"], ["n"])], False),
    ],
)
def test_one_number_is_told_from_several_without_computing_it(nodes, expected):
    made = [
        onnx.helper.make_node(op, reads, makes, **({"to": 1} if op == "Cast" else {})) for op, reads, makes in nodes
    ]
    made.append(onnx.helper.make_node("Identity", ["x"], ["y"]))
    constants = [("one", np.float32(2.0)), ("many", np.ones(3, np.float32)), ("zero", np.int64(0))]
    constants = [(name, np.asarray(array)) for name, array in constants]
    assert read(model(made, constants)).is_number("n") == expected
