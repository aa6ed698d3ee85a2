"""What ONNX Runtime's own operators compute is found by its numbers: activations, a cap, norms."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

from llmtrace.dataflow.identify import Capped, find_activation, find_cap, find_norm
from llmtrace.spec import Norm


def on_runtime(nodes, inputs, initializers=(), opset=23):
    """A piece that ONNX Runtime computes: nodes from the inputs `x0`, `x1`, … (of that many axes) to `y`."""
    kind = onnx.TensorProto.FLOAT
    given = [
        onnx.helper.make_tensor_value_info(f"x{i}", kind, [f"{i}_{axis}" for axis in range(axes)])
        for i, axes in enumerate(inputs)
    ]
    graph = onnx.helper.make_graph(
        list(nodes), "piece", given, [onnx.helper.make_tensor_value_info("y", kind, None)],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in initializers],
    )  # fmt: skip
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("com.microsoft", 1)], ir_version=10
    )  # fmt: skip
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda *arrays: session.run(["y"], {f"x{i}": array for i, array in enumerate(arrays)})[0]


@pytest.mark.parametrize(("approximate", "name"), [("none", "gelu"), ("tanh", "gelu_tanh")])
def test_the_runtimes_own_gelus_are_found(approximate, name):
    node = onnx.helper.make_node("Gelu", ["x0"], ["y"], approximate=approximate)
    assert find_activation(on_runtime([node], [2]), 48).act == name


def test_the_runtimes_own_quick_gelu_and_silu_are_found():
    for alpha, name in ((1.702, "quick_gelu"), (1.0, "silu")):
        node = onnx.helper.make_node("QuickGelu", ["x0"], ["y"], domain="com.microsoft", alpha=alpha)
        assert find_activation(on_runtime([node], [2]), 48).act == name


def test_the_runtimes_own_cap_is_found():
    nodes = [
        onnx.helper.make_node("Div", ["x0", "cap"], ["a"]),
        onnx.helper.make_node("Tanh", ["a"], ["b"]),
        onnx.helper.make_node("Mul", ["b", "cap"], ["y"]),
    ]
    assert find_cap(on_runtime(nodes, [2], [("cap", np.float32(30))]), 48) == Capped(1.0, 30.0)


def test_the_runtimes_own_layer_norm_is_found():
    rng = np.random.default_rng(0)
    weights = [("w", rng.normal(size=48).astype(np.float32)), ("b", rng.normal(size=48).astype(np.float32))]
    node = onnx.helper.make_node("LayerNormalization", ["x0", "w", "b"], ["y"], epsilon=1e-5, axis=-1)
    found = find_norm(on_runtime([node], [2], weights), 48)
    assert found.norm == Norm(1e-5, centred=True, bias=True)
    np.testing.assert_allclose(found.w, weights[0][1], rtol=1e-6, atol=1e-6)


def test_the_runtimes_own_rms_norm_is_found():
    weight = np.random.default_rng(0).normal(size=48).astype(np.float32)
    node = onnx.helper.make_node("SimplifiedLayerNormalization", ["x0", "w"], ["y"], epsilon=1e-6, axis=-1)
    found = find_norm(on_runtime([node], [2], [("w", weight)]), 48)
    assert found.norm == Norm(1e-6)
    np.testing.assert_allclose(found.w, weight, rtol=1e-6)
