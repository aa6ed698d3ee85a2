"""Matrices that ONNX Runtime's optimiser joins with their product: what is said of them is what the runtime does."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from llmtrace.dataflow.unpacking import OPERANDS
from llmtrace.schema.blocks import rounded_to
from llmtrace_onnxruntime.optimised import joined
from llmtrace_onnxruntime.options import LEVELS, OnnxRuntimeOptions

RANDOM = np.random.default_rng(3)
WIDTH, ROWS = 256, 6
TYPES = {
    "uint4": (TensorProto.UINT4, 4, 0, 15),
    "int4": (TensorProto.INT4, 4, -8, 7),
    "uint8": (TensorProto.UINT8, 8, 0, 255),
}


def graph(kind, block, *, axis=0, transposed=False):
    """`x @ dequantised`, and the matrix, float64."""
    element, bits, least, most = TYPES[kind]
    levels = RANDOM.integers(least, most + 1, (WIDTH, ROWS))
    shape = (WIDTH // block, ROWS) if axis == 0 else (WIDTH, ROWS // 2)
    scales = RANDOM.uniform(0.5, 1, shape).astype(np.float32)
    middle = (least + most + 1) // 2

    def packed(name, array):
        flat = array.astype(np.int64).ravel() & (1 << bits) - 1
        raw = (flat[::2] | flat[1::2] << 4 if bits == 4 else flat).astype(np.uint8).tobytes()
        return helper.make_tensor(name, element, array.shape, raw, raw=True)

    wide = np.repeat(scales, block, 0) if axis == 0 else np.repeat(scales, 2, 1)
    nodes = [
        helper.make_node(
            "DequantizeLinear", ["levels", "scales", "zeros"], ["w"], axis=axis, block_size=block if axis == 0 else 2
        ),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes, "product", [value("x", 1, ["token", WIDTH])], [value("y", 1, ["token", ROWS])],
        [packed("levels", levels), numpy_helper.from_array(scales, "scales"), packed("zeros", np.full(shape, middle))],
    )  # fmt: skip
    return made, (levels - middle) * wide.astype(np.float64)


def run(made, options, x):
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[options.optimization])
    if not options.prepacking:
        settings.add_session_config_entry("session.disable_prepacking", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), settings).run(None, {"x": x})[0]


def off(a, b):
    return float(np.sqrt(((a - b) ** 2).sum() / (b**2).sum()))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("block", OPERANDS)
@pytest.mark.parametrize("optimization", LEVELS)
@pytest.mark.parametrize("prepacking", [True, False])
def test_the_other_factor_is_rounded_as_is_said_and_only_where_it_is_said(kind, block, optimization, prepacking):
    made, matrix = graph(kind, block)
    options = OnnxRuntimeOptions(optimization=optimization, prepacking=prepacking)
    x = RANDOM.normal(size=(5, WIDTH)).astype(np.float32)
    x[:, 3] *= 40
    found = run(made, options, x)
    said = joined(made, options).get("w", "")
    assert bool(said) == (off(found, x @ matrix) > 1e-3)
    expected = rounded_to(said, x.astype(np.float64)) if said else x
    assert off(found, expected @ matrix) < 1e-5


def test_blocks_along_the_rows_are_not_joined():
    made, matrix = graph("uint4", 32, axis=1)
    x = RANDOM.normal(size=(5, WIDTH)).astype(np.float32)
    assert joined(made, OnnxRuntimeOptions()) == {}
    assert off(run(made, OnnxRuntimeOptions(), x), x @ matrix) < 1e-5
