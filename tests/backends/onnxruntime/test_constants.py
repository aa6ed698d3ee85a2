"""Matrices and tables that are packed in few bits are what ONNX Runtime's own operators multiply by and look up."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("llmtrace_onnxruntime")

from onnx import helper, numpy_helper

from llmtrace.dataflow.constants import bias, matrix, table
from llmtrace.dataflow.graph import Vertex
from llmtrace.dataflow.segments import Line
from llmtrace.errors import UnsupportedModelError

RANDOM = np.random.default_rng(0)


def of_runtime(node, weights, x):
    """What one operator makes of x."""
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    held = [
        each if isinstance(each, onnx.TensorProto) else numpy_helper.from_array(each, name)
        for name, each in weights.items()
    ]
    graph = helper.make_graph(
        [node], "graph", [helper.make_tensor_value_info("x", kind, [None] * x.ndim)],
        [onnx.ValueInfoProto(name="y")], held,
    )  # fmt: skip
    sets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=sets, ir_version=10)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


def vertex_of(node):
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return Vertex(0, node.op_type, node.domain, tuple(node.input), tuple(node.output), attributes)


def bytes_of(levels, bits):
    """Levels along the last axis in bytes, low bits first."""
    if bits == 8:
        return levels
    more = np.concatenate([levels, np.zeros((*levels.shape[:-1], levels.shape[-1] % 2), np.uint8)], axis=-1)
    return more[..., ::2] | more[..., 1::2] << 4


@pytest.mark.parametrize(
    ("bits", "zeros"), [(4, "none"), (4, "packed"), (4, "float"), (8, "none"), (8, "packed")]
)  # ONNX Runtime takes no float zero points of 8 bits
@pytest.mark.parametrize("block", [16, 32, 64, 128])
@pytest.mark.parametrize("width", [128, 200])
def test_a_packed_matrix_is_what_the_runtime_multiplies_by(bits, block, zeros, width):
    rows, blocks = 10, -(-width // block)
    levels = RANDOM.integers(0, 1 << bits, (rows, blocks, block), dtype=np.uint8)
    weights = {
        "b": bytes_of(levels, bits),
        "scales": RANDOM.normal(size=(rows, blocks)).astype(np.float32),
    }
    weights["scales"] = weights["scales"].reshape(-1)
    if zeros == "packed":
        weights["zero"] = bytes_of(RANDOM.integers(0, 1 << bits, (rows, blocks), dtype=np.uint8), bits).reshape(-1)
    elif zeros == "float":
        weights["zero"] = RANDOM.normal(7, 1, size=(rows, blocks)).astype(np.float32).reshape(-1)
    node = helper.make_node(
        "MatMulNBits", ["x", *weights], ["y"], domain="com.microsoft", bits=bits, block_size=block, K=width, N=rows
    )
    expected = of_runtime(node, weights, np.eye(width, dtype=np.float32))
    source = matrix(Line(vertex_of(node), "x", "y"), weights)
    assert source.packed == f"int{bits}"
    assert source.constant == "b"
    found = source.read()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_blocks_in_whole_numbers_round_the_other_factor():
    def source(**attributes):
        node = helper.make_node("MatMulNBits", ["x", "b", "s"], ["y"], bits=4, K=64, N=2, **attributes)
        return matrix(Line(vertex_of(node), "x", "y"), {})

    assert source(block_size=32, accuracy_level=4).operands == "q8_0"
    assert source(block_size=64, accuracy_level=4).operands == "int8_64"
    assert source(block_size=32).operands == source(block_size=8, accuracy_level=4).operands == ""


def test_columns_in_groups_are_refused_by_name():
    node = helper.make_node("MatMulNBits", ["x", "b", "s", "", "g"], ["y"], bits=4, K=16, N=1, block_size=16)
    weights = {"b": np.zeros((1, 1, 8), np.uint8), "s": np.ones(1, np.float32), "g": np.zeros(16, np.int32)}
    with pytest.raises(UnsupportedModelError, match="g_idx"):
        matrix(Line(vertex_of(node), "x", "y"), weights).read()


@pytest.mark.parametrize("kind", ["uint8 of 4 bits", "uint8 of 8 bits", "uint4", "int4"])
@pytest.mark.parametrize("block", [16, 32, 64, 128])
@pytest.mark.parametrize("zeros", [False, True])
def test_a_packed_table_is_what_the_runtime_looks_up(kind, block, zeros):
    bits, rows, width = (8 if "8 bits" in kind else 4), 7, 128
    low, high = (-8, 8) if kind == "int4" else (0, 1 << bits)
    levels = RANDOM.integers(low, high, (rows, width))
    points = RANDOM.integers(low, high, (rows, width // block))
    scales = RANDOM.normal(size=(rows, width // block)).astype(np.float32)

    def packed(array, name):
        if kind in ("uint4", "int4"):
            whole = array.astype(getattr(ml_dtypes, kind))
            return whole, numpy_helper.from_array(whole, name)
        held = bytes_of(array.astype(np.uint8), bits)
        return held, held

    ours, theirs = {}, {}
    ours["table"], theirs["table"] = packed(levels, "table")
    ours["scales"] = theirs["scales"] = scales
    reads = ["table", "x", "scales"]
    if zeros:
        ours["zero"], theirs["zero"] = packed(points, "zero")
        reads.append("zero")
    node = helper.make_node(
        "GatherBlockQuantized", reads, ["y"], domain="com.microsoft", block_size=block, gather_axis=0, quantize_axis=1,
        **({"bits": bits} if "uint8" in kind else {}),
    )  # fmt: skip
    expected = of_runtime(node, theirs, np.arange(rows, dtype=np.int64))
    source = table(vertex_of(node), ours)
    assert source.packed == f"int{bits}"
    np.testing.assert_array_equal(source.read(), expected)


@pytest.mark.parametrize(
    "attributes", [{}, {"transB": 1}, {"alpha": 0.5, "beta": 0.25}, {"transB": 1, "alpha": 2.0, "beta": -1.0}]
)
def test_what_a_gemm_multiplies_by_and_adds_is_scaled_as_it_says(attributes):
    held = RANDOM.normal(size=(6, 4) if attributes.get("transB") else (4, 6)).astype(np.float32)
    weights = {"w": held, "c": RANDOM.normal(size=6).astype(np.float32)}
    node = helper.make_node("Gemm", ["x", "w", "c"], ["y"], **attributes)
    x = RANDOM.normal(size=(3, 4)).astype(np.float32)
    one = Line(vertex_of(node), "x", "y", "c")
    ours = x @ matrix(one, weights).read() + bias(one, weights).read()
    np.testing.assert_allclose(ours, of_runtime(node, weights, x), rtol=1e-5, atol=1e-6)


def test_a_plain_weight_is_read_to_the_last_bit_in_its_own_type():
    weights = {
        "w": RANDOM.normal(size=(4, 6)).astype(np.float16),
        "t": RANDOM.normal(size=(5, 4)).astype(ml_dtypes.bfloat16),
    }
    read = matrix(Line(vertex_of(helper.make_node("MatMul", ["x", "w"], ["y"])), "x", "y"), weights).read()
    assert read.dtype == np.float16
    assert read.tobytes() == weights["w"].tobytes()
    rows = table(vertex_of(helper.make_node("Gather", ["t", "x"], ["y"])), weights).read()
    assert rows.dtype == ml_dtypes.bfloat16
    assert rows.tobytes() == weights["t"].tobytes()


@pytest.mark.parametrize(("shape", "axis"), [((5, 4), 1), ((5, 4, 2), 0)])
def test_a_table_of_another_shape_is_refused(shape, axis):
    node = helper.make_node("Gather", ["t", "x"], ["y"], axis=axis)
    with pytest.raises(UnsupportedModelError, match=r"table of the embedding has the shape \[5, 4"):
        table(vertex_of(node), {"t": np.zeros(shape, np.float32)}).read()
