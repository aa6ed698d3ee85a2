"""Pieces of a graph, as torch or ONNX Runtime computes them: what identification is tried on."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

UNITS = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


def of(function, dtype=torch.float32):
    """A function of tensors as one of arrays: float32 in and out, computed in `dtype`."""

    def piece(*arrays):
        assert all(array.dtype == np.float32 for array in arrays)
        with torch.no_grad():
            return function(*(torch.from_numpy(np.array(array)).to(dtype) for array in arrays)).float().numpy()

    return piece


def on_runtime(nodes, inputs, initializers=(), opset=23):
    """A piece that ONNX Runtime computes: nodes from the inputs `x0`, `x1`, … (of that many axes) to `y`."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
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
