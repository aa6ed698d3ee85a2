"""Products of whole numbers are told from their dataflow, and what they are widened to computes what ONNX Runtime does: to the last digits where
the numbers lie on the levels that they are rounded to."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("llmtrace_onnxruntime")

from onnx import TensorProto, helper, numpy_helper

from llmtrace_onnxruntime.spelling import spelled

OWN = {"domain": "com.microsoft"}
ROWS, WIDTH, OUT = 5, 8, 6
RANDOM = np.random.default_rng(0)
HELD = {
    "B": RANDOM.integers(-64, 64, (WIDTH, OUT)).astype(np.int8),  # half the range: no sum saturates, on any processor
    "table": RANDOM.integers(0, 256, (9, WIDTH)).astype(np.uint8),
    "sB": np.float32(0.25), "sBs": RANDOM.uniform(0.1, 1, OUT).astype(np.float32), "zB": np.int8(3),
    "zBs": RANDOM.integers(-9, 9, OUT).astype(np.int8), "b": RANDOM.normal(size=OUT).astype(np.float32), "sT": np.float32(0.5),
    "zT": np.uint8(130), "both": np.float32(0.125), "w": RANDOM.normal(size=(WIDTH, OUT)).astype(np.float32),
}  # fmt: skip


def node(op, reads, makes, **attributes):
    return helper.make_node(op, ["" if name == "-" else name for name in reads.split()], makes.split(), **attributes)


ROUND = node("DynamicQuantizeLinear", "x", "xq sx zx")
CAST = node("Cast", "whole", "wide", to=TensorProto.FLOAT)
SCALE = node("Mul", "sx sB", "s")
FORMS = {
    "one scale": [ROUND, SCALE, node("MatMulInteger", "xq B zx zB", "whole"), CAST, node("Mul", "wide s", "y")],
    "a scale and zero a column": [
        ROUND, node("Mul", "sBs sx", "s"), node("MatMulInteger", "xq B zx zBs", "whole"), CAST, node("Mul", "s wide", "y"),
    ],
    "no zero, and scales one after the other": [
        ROUND, node("MatMulInteger", "xq B zx", "whole"), CAST, node("Mul", "wide sB", "half"), node("Mul", "half sx", "y"),
    ],
    "scaled by the operator": [ROUND, node("MatMulIntegerToFloat", "xq B sx sBs zx zBs b", "y", **OWN)],
    "rounded by the operator": [node("DynamicQuantizeMatMul", "x B sB zB b", "y", **OWN)],
    "rounded by the operator, no zero, no bias": [node("DynamicQuantizeMatMul", "x B sBs", "y", **OWN)],
}  # fmt: skip
LOOKED_UP = node("Gather", "table ids", "rows")
TABLES = {
    "a row": [LOOKED_UP, node("DequantizeLinear", "rows sT zT", "y")],
    "a row that a product reads as it is": [
        LOOKED_UP, node("MatMulInteger", "rows B zT zB", "whole"), CAST, node("Mul", "sT sB", "s"), node("Mul", "wide s", "part"),
        node("DequantizeLinear", "rows sT zT", "row"), node("MatMul", "row w", "more"), node("Add", "part more", "y"),
    ],
    "and scales that were multiplied before": [
        LOOKED_UP, node("MatMulInteger", "rows B zT zB", "whole"), CAST, node("Mul", "wide both", "part"),
        node("DequantizeLinear", "rows sT zT", "row"), node("MatMul", "row w", "more"), node("Add", "part more", "y"),
    ],
}  # fmt: skip


def graph(nodes, ids=False, held=None):
    """`held` instead of what stands in `HELD`."""
    given = (
        helper.make_tensor_value_info("ids", TensorProto.INT64, [ROWS])
        if ids
        else helper.make_tensor_value_info("x", TensorProto.FLOAT, [ROWS, WIDTH])
    )
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in (HELD | (held or {})).items()]
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(helper.make_graph(nodes, "g", [given], [out], held), opset_imports=sets, ir_version=10)


def run(model, fed):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(["y"], fed)[
        0
    ]


def read(model):
    return spelled(model, {name: np.shape(array) for name, array in HELD.items()})


def ops(model):
    return {each.op_type for each in model.graph.node}


@pytest.mark.parametrize("form", FORMS)
def test_a_product_is_that_of_what_its_numbers_stand_for(form):
    model = graph(FORMS[form])
    found = read(model)
    assert ops(found.model) <= {"MatMul", "Cast", "Sub", "Mul", "Add"}
    on_levels = RANDOM.integers(-100, 156, (ROWS, WIDTH)).astype(np.float32)
    on_levels.flat[:2] = -100, 155  # 255 apart: a step is 1
    wanted = run(model, {"x": on_levels})
    np.testing.assert_allclose(run(found.model, {"x": on_levels}), wanted, rtol=1e-6, atol=1e-3)
    between = {"x": on_levels + np.float32(0.4)}
    assert np.abs(run(found.model, between) - run(model, between)).max() > 0.1  # that is the rounding


@pytest.mark.parametrize("form", FORMS)
def test_it_is_told_before_which_matrices_a_graph_rounds(form):
    found = read(graph(FORMS[form]))
    (matrix,) = found.rounding
    assert any(matrix in each.input for each in found.model.graph.node if each.op_type == "MatMul")
    assert found.shapes[matrix] == (WIDTH, OUT)


@pytest.mark.parametrize("form", TABLES)
def test_a_table_is_widened_before_it_is_looked_up_and_its_rows_are_not_rounded(form):
    model = graph(TABLES[form], ids=True)
    found = read(model)
    assert ops(found.model) <= {"MatMul", "Cast", "Sub", "Mul", "Div", "Add", "Gather"}
    assert not found.rounding
    assert (9, WIDTH) in found.shapes.values()
    fed = {"ids": np.array([8, 0, 3, 3, 1])}
    np.testing.assert_allclose(run(found.model, fed), run(model, fed), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("DynamicQuantizeLinear", "x", "xq sx zx"), node("MatMulInteger", "xq B - zB", "whole"), CAST, SCALE, node("Mul", "wide s", "y")],
        [ROUND, node("MatMulInteger", "xq B zx zB", "whole"), CAST, node("Mul", "wide sB", "y")],
        [ROUND, SCALE, node("MatMulInteger", "xq B zx zB", "whole"), CAST, node("Mul", "wide s", "z"), node("Add", "z wide", "y")],
        [ROUND, node("MatMulIntegerToFloat", "xq B sB sB zx zB", "y", **OWN)],
    ],
    ids=["another zero", "without its scale", "read before it is scaled", "another scale"],
)  # fmt: skip
def test_what_computes_something_else_stays(nodes):
    model = graph(nodes)
    assert read(model).model is model


def test_a_graph_without_them_stays():
    plain = graph([node("MatMul", "x w", "y")])
    assert read(plain).model is plain
