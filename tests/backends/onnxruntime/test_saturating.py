"""Sums of int8 products that some processors cut off at 16 bits: where that can happen is known, and with whole sums nothing is cut off anywhere.

What holds of this processor is measured; what only others do is tried by telling the backend that this one does.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import helper, numpy_helper

import llmtrace
from llmtrace.errors import UnsupportedModelError
from llmtrace.families import spec_of
from llmtrace.testing.tiny import TINY
from llmtrace_onnxruntime import int16_sums, saturating
from llmtrace_onnxruntime.inputs import inputs_of
from llmtrace_onnxruntime.int16_sums import can_saturate
from llmtrace_onnxruntime.proto import load
from llmtrace_onnxruntime.saturating import read_unsigned, saturable, saturates
from tests.backends.onnxruntime.opening import open_graph, write
from tests.backends.onnxruntime.reading.opened import error
from tests.backends.onnxruntime.reading.test_quantised import quantised
from tests.backends.onnxruntime.test_integers import FORMS, HELD, OUT, ROWS, TABLES, WIDTH, graph, run
from tests.backends.onnxruntime.written import TOKENS, drawn

CPU = ("CPUExecutionProvider",)
RANDOM = np.random.default_rng(0)
FULL = {"B": RANDOM.integers(-128, 128, (WIDTH, OUT)).astype(np.int8)}


def stand_for(levels):
    """Levels as what they stand for, as each form has it: y = x @ these, plus a bias."""
    return {
        "one scale": ((levels - 3.0) * 0.25, 0),
        "a scale and zero a column": ((levels - HELD["zBs"].astype(float)) * HELD["sBs"], 0),
        "no zero, and scales one after the other": (levels * 0.25, 0),
        "scaled by the operator": ((levels - HELD["zBs"].astype(float)) * HELD["sBs"], HELD["b"]),
        "rounded by the operator": ((levels - 3.0) * 0.25, HELD["b"]),
        "rounded by the operator, no zero, no bias": (levels * HELD["sBs"], 0),
    }


@pytest.fixture
def always(monkeypatch):
    """A processor whose sums saturate."""
    monkeypatch.setattr(saturating, "saturates", lambda *providers: True)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """Full range of int8, half of it, and uint8."""
    place = tmp_path_factory.mktemp("saturating")
    path = write(drawn(spec_of({"model_type": "llama", **TINY["llama"]})), place / "float")
    kinds = {"full": {}, "half": {"reduce_range": True}, "unsigned": {"unsigned": True}}
    return {kind: quantised(path, place / kind, **options) for kind, options in kinds.items()}


@given(arrays(np.int8, st.tuples(st.integers(1, 7), st.integers(1, 3)), elements=st.integers(-128, 127) | st.just(64)))
def test_a_matrix_can_saturate_where_some_two_products_are_more_than_16_bits_hold(matrix):
    reached = [
        abs(first * a + second * b) > 32767 + (first * a + second * b < 0)
        for column in matrix.T.tolist()
        for a, b in zip(column[::2], column[1::2], strict=False)
        for first in (0, 255)
        for second in (0, 255)
    ]
    assert can_saturate(matrix) == any(reached)


@pytest.mark.parametrize("at_once", [1, 4, 1 << 20])
def test_a_large_matrix_is_looked_at_to_its_end(at_once, monkeypatch):
    monkeypatch.setattr(int16_sums, "AT_ONCE", at_once)
    matrix = np.full((101, 2), 64, np.int8)
    assert not can_saturate(matrix)
    matrix[98:100, 1] = 65, 64
    assert can_saturate(matrix)
    # two of 65 are neighbours, but each is added to another, and the last one to none
    matrix[96:, 1] = [63, 65, 65, 63, 127]
    assert not can_saturate(matrix)


def test_whether_sums_saturate_here_is_what_onnx_runtime_does_here():
    levels = RANDOM.integers(0, 256, (ROWS, WIDTH)).astype(np.float32)
    levels.flat[:2] = 0, 255
    matrix, _ = stand_for(FULL["B"])["one scale"]
    off = np.abs(run(graph(FORMS["one scale"], held=FULL), {"x": levels}) - levels @ matrix).max()
    assert saturates(*CPU) == (off > 1)


@pytest.mark.parametrize("form", FORMS)
def test_products_of_unsigned_matrices_are_whole_on_every_processor(form, always):
    model = graph(FORMS[form], held=FULL)
    read_unsigned(model.graph, HELD | FULL, CPU)
    levels = RANDOM.integers(-100, 156, (ROWS, WIDTH)).astype(np.float32)
    levels.flat[:2] = -100, 155  # 255 apart: a step is 1, and nothing is rounded
    matrix, bias = stand_for(FULL["B"])[form]
    np.testing.assert_allclose(run(model, {"x": levels}), levels @ matrix + bias, rtol=1e-6, atol=1e-3)
    assert not list(saturable(model.graph, HELD | FULL, {}))


@pytest.mark.parametrize("form", [form for form in TABLES if form != "a row"])
def test_so_are_those_of_rows_of_a_table(form, always):
    model, fed = graph(TABLES[form], ids=True, held=FULL), {"ids": np.array([8, 0, 3, 3, 1])}
    read_unsigned(model.graph, HELD | FULL, CPU)
    rows = (HELD["table"][fed["ids"]] - 130.0) * 0.5
    expected = rows @ ((FULL["B"] - 3.0) * 0.25) + rows @ HELD["w"]
    np.testing.assert_allclose(run(model, fed), expected, rtol=1e-5, atol=1e-3)
    assert not list(saturable(model.graph, HELD | FULL, {}))


MOVED = {
    "three axes": ([], "B3"),
    "one axis": ([], "B1"),
    "turned": ([helper.make_node("Transpose", ["BT"], ["moved"])], "moved"),
    "handed on": ([helper.make_node("Identity", ["B"], ["moved"])], "moved"),
}


@pytest.mark.parametrize("form", MOVED)
def test_and_of_matrices_of_other_shapes_and_such_as_are_moved_before(form, always):
    before, matrix = MOVED[form]
    held = FULL | {"B3": np.stack([FULL["B"]] * 2), "B1": FULL["B"][:, 0].copy(), "BT": FULL["B"].T.copy()}
    product = helper.make_node("MatMulInteger", ["xq", matrix, "zx", "zB"], ["whole"])
    model = graph(
        [FORMS["one scale"][0], *before, *FORMS["one scale"][1:2], product, *FORMS["one scale"][3:]], held=held
    )
    read_unsigned(model.graph, HELD | held, CPU)
    assert not list(saturable(model.graph, HELD | held, {}))
    levels = RANDOM.integers(-100, 156, (ROWS, WIDTH)).astype(np.float32)
    levels.flat[:2] = -100, 155
    numbers = held.get(matrix, FULL["B"])
    np.testing.assert_allclose(run(model, {"x": levels}), levels @ ((numbers - 3.0) * 0.25), rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("zero", [np.uint8(3), np.int32(3)])
def test_a_zero_of_another_type_is_left_for_onnx_runtime_to_refuse(zero, always):
    model = graph(FORMS["one scale"], held=FULL | {"zB": zero})
    before = model.SerializeToString(deterministic=True)
    read_unsigned(model.graph, HELD | FULL | {"zB": zero}, CPU)
    assert model.SerializeToString(deterministic=True) == before


def test_a_matrix_that_others_read_too_stays_for_them(always):
    model = graph(FORMS["one scale"], held=FULL)
    model.graph.node.append(helper.make_node("Identity", ["B"], ["same"]))
    read_unsigned(model.graph, HELD | FULL, CPU)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    np.testing.assert_array_equal(held["B"], FULL["B"])
    np.testing.assert_array_equal(held["B/unsigned"], FULL["B"].astype(int) + 128)


def test_a_graph_without_such_products_is_left_as_it_is(always):
    for held in ({}, {"B": RANDOM.integers(0, 256, (WIDTH, OUT)).astype(np.uint8), "zB": np.uint8(3)}):
        model = graph(FORMS["one scale"], held=held)
        before = model.SerializeToString(deterministic=True)
        read_unsigned(model.graph, HELD | held, CPU)
        assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("optimization", ["off", "extended", "all"])
def test_whole_sums_are_those_of_onnx_runtime_s_own_option(optimization, llama, always):
    """Its `session.x64quantprecision` acts from `extended` on, and only where sums saturate."""
    settings = ort.SessionOptions()
    settings.add_session_config_entry("session.x64quantprecision", "1")
    own = ort.InferenceSession(str(llama["full"]), settings, providers=list(CPU))
    with open_with(llama["full"], saturating=False, optimization=optimization) as model:
        inputs = inputs_of(load(llama["full"]))
        expected = own.run([inputs.logits], dict(inputs.arrays(np.array(TOKENS))))[0]
        assert error(model.trace(list(TOKENS), capture="logits")["logits"].array, expected[0]) < 1e-5
        assert {each.status for each in model.verify(list(TOKENS))} == {"holds"}
        assert model.info.settings["saturating"] == "false"


def test_the_matrices_that_run_are_those_that_were_made_unsigned(llama, always, monkeypatch):
    """Whatever the processor does: with others in their place, other logits come out."""
    with open_with(llama["full"], saturating=False) as model:
        right = model.trace(list(TOKENS), capture="logits")["logits"].array
    middle = saturating.MIDDLE
    monkeypatch.setattr(saturating, "_higher", lambda levels: np.full(levels.shape, middle, np.uint8))
    with pytest.raises(UnsupportedModelError):  # all products are zero
        open_with(llama["full"], saturating=False)
    assert np.isfinite(right).all()


def test_a_matrix_is_looked_through_once(llama, always, monkeypatch):
    looked = []
    monkeypatch.setattr(saturating, "can_saturate", lambda matrix, moved: looked.append(matrix) or True)
    with open_with(llama["full"], saturating=False) as model:
        before = len(looked)
        model.trace(list(TOKENS), capture="blocks.0.attn.q")
        assert 0 < before == len(looked)


def open_with(path, **options):
    return llmtrace.open(str(path), backend="onnxruntime", options=options)


def test_a_graph_is_read_whatever_the_processor_cuts_off_and_a_note_says_by_how_much(llama, always):
    with open_graph(llama["full"]) as exact, open_graph(llama["full"], "shipped") as shipped:
        assert exact.spec == shipped.spec
        assert not [note for note in exact.info.notes if "cuts off" in note]
        (note,) = [note for note in shipped.info.notes if "cuts off" in note]
        assert ": 22." in note and "saturating=false" in note
        whole, cut = (each.trace(list(TOKENS), capture="logits")["logits"].array for each in (exact, shipped))
        if saturates(*CPU):  # measured: the fixture is for the backend
            assert error(cut, whole) > 1e-3 and "move by 0 " not in note
        else:
            assert error(cut, whole) < 1e-5 and "move by 0 " in note


@pytest.mark.parametrize("kind", ["half", "unsigned"])
def test_nothing_is_said_of_files_that_no_processor_cuts_off(kind, llama, always):
    with open_graph(llama[kind], "shipped") as model:
        assert not [note for note in model.info.notes if "cuts off" in note]


def test_nothing_is_said_where_the_processor_adds_all(llama, monkeypatch):
    monkeypatch.setattr(saturating, "saturates", lambda *providers: False)
    with open_graph(llama["full"], "shipped") as model:
        assert not [note for note in model.info.notes if "cuts off" in note]
