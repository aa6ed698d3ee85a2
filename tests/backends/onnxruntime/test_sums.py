"""Norms that add before they norm are the same as a sum and a norm, and their sums can be asked for."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("llmtrace_onnxruntime")

from onnx import TensorProto, helper, numpy_helper

from llmtrace_onnxruntime.sums import SKIP_NORMS, name_sums, parted

RANDOM = np.random.default_rng(0)
WIDTH = 16
WEIGHTS = {name: RANDOM.normal(size=WIDTH).astype(np.float32) for name in ("w", "b", "bias")}


def model(op, *, bias, named, stage=None):
    """One such norm."""
    reads = ["x", "skip", "w", *(["b"] if op == "SkipLayerNormalization" else []), *(["bias"] if bias else [])]
    makes = ["y", "", "", "total"] if named else ["y"]
    node = helper.make_node(op, reads, makes, domain="com.microsoft", epsilon=1e-3)
    value = helper.make_tensor_value_info
    inputs = [value(name, TensorProto.FLOAT, [1, None, WIDTH]) for name in ("x", "skip")]
    held = [numpy_helper.from_array(array, name) for name, array in WEIGHTS.items()]
    graph = helper.make_graph([node], "graph", inputs, [value("y", TensorProto.FLOAT, None)], held)
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=8)


def made(proto, outputs, feeds):
    copied = onnx.ModelProto.FromString(proto.SerializeToString())
    declared = {each.name for each in copied.graph.output}
    copied.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name not in declared)
    session = runtime.InferenceSession(copied.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(list(outputs), feeds)


@pytest.fixture
def feeds():
    return {name: RANDOM.normal(size=(1, 5, WIDTH)).astype(np.float32) for name in ("x", "skip")}


@pytest.mark.parametrize("op", SKIP_NORMS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_a_norm_that_adds_is_a_sum_and_a_norm(op, bias, named, feeds):
    whole = model(op, bias=bias, named=named)
    before = whole.SerializeToString()
    name_sums(whole)
    total = whole.graph.node[0].output[3]
    assert total == ("total" if named else "y/sum")
    parts = parted(whole)
    assert [node.op_type for node in parts.graph.node] == ["Sum", op.removeprefix("Skip")]
    assert [node.op_type for node in whole.graph.node] == [op], "the first is as it was"
    for mine, theirs in zip(made(parts, ["y", total], feeds), made(whole, ["y", total], feeds), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    (bare,) = made(onnx.ModelProto.FromString(before), ["y"], feeds)
    assert np.array_equal(bare, made(whole, ["y"], feeds)[0])
    summed = feeds["x"] + feeds["skip"] + (WEIGHTS["bias"] if bias else 0)
    np.testing.assert_allclose(made(parts, [total], feeds)[0], summed, rtol=1e-6, atol=1e-6)


def test_other_nodes_are_left_alone():
    whole = model("SkipLayerNormalization", bias=False, named=True)
    whole.graph.node.append(helper.make_node("Neg", ["y"], ["z"]))
    assert parted(whole).graph.node[2].SerializeToString() == whole.graph.node[1].SerializeToString()
    name_sums(whole)
    assert list(whole.graph.node[1].output) == ["z"]


def embedding(*reads, makes=("y",), **attributes):
    """Look-ups, their sum and its norm in one."""
    names = ["ids", "", "tokens", "places", "", "w", "b", "", *reads]
    node = helper.make_node("EmbedLayerNormalization", names, makes, domain="com.microsoft", **attributes)
    value = helper.make_tensor_value_info
    given = [value(name, TensorProto.INT32, [1, None]) for name in ("ids", *reads)]
    held = {
        name: RANDOM.normal(size=(rows, WIDTH)).astype(np.float32) for name, rows in (("tokens", 9), ("places", 7))
    } | WEIGHTS
    initial = [numpy_helper.from_array(array, name) for name, array in held.items()]
    graph = helper.make_graph([node], "graph", given, [value("y", TensorProto.FLOAT, None)], initial)
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=8), held


IDS = np.array([[8, 0, 3, 3, 1]], np.int32)


@pytest.mark.parametrize("given", [True, False], ids=["positions given", "positions counted"])
@pytest.mark.parametrize("said", [{}, {"epsilon": 1e-2}], ids=["its own epsilon", "another"])
def test_an_embedding_that_norms_is_two_look_ups_a_sum_and_a_norm(given, said):
    whole, held = embedding(*(["at"] if given else []), **said)
    feeds = {"ids": IDS} | ({"at": np.array([[6, 5, 4, 3, 2]], np.int32)} if given else {})
    name_sums(whole)
    parts = parted(whole)
    assert [node.op_type for node in parts.graph.node][-4:] == ["Gather", "Gather", "Add", "LayerNormalization"]
    found, theirs = (made(each, ["y", "y/sum"], feeds) for each in (parts, whole))
    np.testing.assert_allclose(found[0], theirs[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[1], theirs[1])
    rows = feeds["at"][0] if given else np.arange(5)
    np.testing.assert_array_equal(found[1][0], held["tokens"][IDS[0]] + held["places"][rows])


def test_one_that_looks_up_segments_too_or_whose_mask_is_read_is_left_alone():
    for change in ("segments", "mask"):
        whole, _ = embedding(makes=("y", "mask"))
        if change == "segments":
            whole.graph.node[0].input[1] = "ids"
        else:
            whole.graph.node.append(helper.make_node("Neg", ["mask"], ["z"]))
        before = whole.SerializeToString()
        name_sums(whole)
        assert whole.SerializeToString() == before
        assert parted(whole).SerializeToString() == before


@pytest.mark.parametrize("scaled", ["in steps", "at once"])
def test_the_bias_of_a_product_of_whole_numbers_is_its_branch_s(scaled):
    steps = {
        "in steps": [
            helper.make_node("MatMulInteger", ["xq", "W", "zx"], ["whole"]), helper.make_node("Cast", ["whole"], ["wide"], to=1),
            helper.make_node("Mul", ["scale", "wide"], ["made"]),
        ],
        "at once": [helper.make_node("MatMulIntegerToFloat", ["xq", "W", "sx", "scale"], ["made"], domain="com.microsoft")],
    }  # fmt: skip
    whole = model("SkipLayerNormalization", bias=True, named=True)
    norm = whole.graph.node[0]
    norm.input[1] = "made"
    nodes = [*steps[scaled], onnx.NodeProto.FromString(norm.SerializeToString())]
    del whole.graph.node[:]
    whole.graph.node.extend(nodes)
    added = [node for node in parted(whole).graph.node if node.op_type == "Add"]
    assert [list(node.input) for node in added] == [["made", "bias"]]
