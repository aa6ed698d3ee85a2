"""What an optimiser put into one operator is taken apart, and the parts compute what ONNX Runtime's operator does."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("llmtrace_onnxruntime")

from onnx import TensorProto, helper, numpy_helper

from llmtrace_onnxruntime.fusions import inside, unfused
from llmtrace_onnxruntime.sums import name_sums, parted

WIDTH = 8
OWN = {"domain": "com.microsoft"}


def graph(*nodes, reads=("x",)):
    """Nodes that make `y` [5, 8] of `x` (and `stream`), with matrices `W`, `V`, vectors `b`, `c` and `w`."""
    rng = np.random.default_rng(0)
    drawn = {name: rng.normal(size=(WIDTH,) * (1 + (name in "WV"))).astype(np.float32) for name in "WVbcw"}
    made = helper.make_graph(
        list(nodes), "g", [helper.make_tensor_value_info(name, TensorProto.FLOAT, [5, WIDTH]) for name in reads],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in drawn.items()],
    )  # fmt: skip
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=sets, ir_version=10)


def run(model, outputs=("y",)):
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    del copied.graph.output[:]
    copied.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(copied.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    fed = {each.name: rng.normal(size=(5, WIDTH)).astype(np.float32) for each in session.get_inputs()}
    return dict(zip(outputs, session.run(list(outputs), fed), strict=True)) | fed


def ops(model):
    return [node.op_type for node in model.graph.node]


def weight(model, name):
    return next(numpy_helper.to_array(each) for each in model.graph.initializer if each.name == name)


@pytest.mark.parametrize(
    ("nodes", "parts"),
    [
        ([helper.make_node("FastGelu", ["x", "b"], ["y"], **OWN)], ["Add", "FastGelu"]),
        ([helper.make_node("BiasGelu", ["x", "b"], ["y"], **OWN)], ["Add", "Gelu"]),
        (
            [helper.make_node("FusedGemm", ["x", "W", "b"], ["y"], transB=1, alpha=0.5, activation="Relu", **OWN)],
            ["Gemm", "Relu"],
        ),
        (
            [helper.make_node("FusedMatMul", ["x", "W"], ["y"], transB=1, alpha=0.25, **OWN)],
            ["FusedMatMul", "Constant", "Mul"],
        ),
    ],
    ids=lambda each: each[0].op_type if not isinstance(each[0], str) else "",
)
def test_parts_compute_what_the_whole_does(nodes, parts):
    whole = graph(*nodes)
    apart = unfused(whole)
    assert ops(apart) == parts
    assert ops(whole) == [nodes[0].op_type]
    assert np.allclose(run(apart)["y"], run(whole)["y"], atol=1e-6)


def test_what_only_the_parts_hold_is_told():
    whole = graph(helper.make_node("FastGelu", ["x", "b"], ["y"], **OWN))
    (name,) = inside(unfused(whole), whole)
    found = run(unfused(whole), (name,))
    assert np.array_equal(found[name], found["x"] + weight(whole, "b"))


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("FastGelu", ["x"], ["y"], **OWN),
        helper.make_node("FusedGemm", ["x", "W"], ["y"], activation="LeakyRelu", activation_alpha=0.1, **OWN),
        helper.make_node("FusedMatMul", ["x", "W"], ["y"], alpha=1.0, **OWN),
        helper.make_node("FusedMatMul", ["x", "x"], ["y"], transB=1, alpha=0.5, **OWN),
    ],
    ids=lambda node: f"{node.op_type} of {len(node.input)}",
)
def test_what_hides_nothing_and_what_is_not_known_stays(node):
    assert unfused(graph(node)) == graph(node)


def test_the_factor_of_a_product_that_gets_a_bias_is_the_matrix_s_own():
    nodes = [
        helper.make_node("FusedMatMul", ["x", "W"], ["product"], alpha=0.5, **OWN),
        helper.make_node("Add", ["product", "b"], ["y"]),
    ]
    assert ops(unfused(graph(*nodes))) == ["FusedMatMul", "Add"]


@pytest.mark.parametrize("first", [True, False], ids=["the branch first", "the stream first"])
def test_the_bias_that_a_norm_adds_is_its_branch_s(first):
    terms = ["product", "stream"] if first else ["stream", "product"]
    whole = graph(
        helper.make_node("MatMul", ["x", "V"], ["product"]),
        helper.make_node("SkipLayerNormalization", [*terms, "w", "c", "b"], ["y"], epsilon=1e-5, **OWN),
        reads=("x", "stream"),
    )
    name_sums(whole)
    apart = parted(whole)
    assert ops(apart) == ["MatMul", "Add", "Sum", "LayerNormalization"]
    (name,) = inside(apart, whole)
    found = run(apart, (name, "y/sum", "y"))
    assert np.allclose(found[name], found["x"] @ weight(whole, "V") + weight(whole, "b"), atol=1e-5)
    assert np.allclose(found["y/sum"], found[name] + found["stream"], atol=1e-5)
    assert np.allclose(found["y"], run(whole)["y"], atol=1e-5)
