"""Any value of a graph can be asked for, and asking changes nothing; pieces of it run alone; weights are there once."""

from __future__ import annotations

import gc

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("llmtrace_onnxruntime")

import ml_dtypes
from attrs import evolve
from onnx import TensorProto, helper, numpy_helper

from llmtrace.errors import BackendError, ModelOpenError, OptionError, UnsupportedModelError
from llmtrace_onnxruntime.inputs import inputs_of
from llmtrace_onnxruntime.options import PRESETS, OnnxRuntimeOptions
from llmtrace_onnxruntime.proto import load
from llmtrace_onnxruntime.running import MOST, Runner
from llmtrace_onnxruntime.sessions import session_options
from tests.backends.onnxruntime import graphs

TOKENS = [3, 1, 4, 1, 5, 9, 2]
VALUES = ("embedded", "pattern", "y", "logits")


@pytest.fixture(scope="module", params=["one file", "external data"])
def loaded(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    return load((graphs.save if request.param == "one file" else graphs.save_external)(graphs.decoder(), path))


@pytest.fixture(scope="module")
def feeds(loaded):
    return inputs_of(loaded).arrays(TOKENS)


@pytest.fixture
def runner(loaded):
    return Runner(loaded, PRESETS["exact"])


# -- runs


@pytest.mark.parametrize("preset", PRESETS)
def test_values_inside_of_the_graph_are_what_numpy_computes(preset, loaded, feeds):
    got = Runner(loaded, PRESETS[preset]).run(feeds, VALUES)
    assert tuple(got) == VALUES
    for name, expected in graphs.computed(TOKENS).items():
        assert np.allclose(got[name].reshape(expected.shape), expected, atol=1e-5), name


@pytest.mark.parametrize("prepacking", [False, True])
def test_as_the_graph_is_written_asking_for_every_value_leaves_the_logits_bit_for_bit(prepacking, loaded, feeds):
    runner = Runner(loaded, evolve(PRESETS["exact"], prepacking=prepacking))
    bare = runner.run(feeds, ["logits"])["logits"]
    inside = [name for node in loaded.graph.node for name in node.output]
    assert np.array_equal(runner.run(feeds, ["logits", *inside])["logits"], bare)
    assert np.array_equal(runner.run(feeds, ["logits"])["logits"], bare)


def test_each_set_of_values_has_a_session_and_the_oldest_makes_room(runner, feeds, monkeypatch):
    made = []
    make = runner._make
    monkeypatch.setattr(runner, "_make", lambda added: made.append(added) or make(added))
    for outputs in (["y"], ["y", "logits"], ["logits"], ["present.key"], ["y"]):
        runner.run(feeds, outputs)
    assert made == [{"y"}, frozenset()]
    for node in runner.proto.graph.node[: MOST + 1]:
        runner.open([node.output[0]])
    assert len(runner._sessions) == MOST
    runner.run(feeds, ["y"])
    assert made[-1] == {"y"}


def test_arrays_outlive_the_session_that_made_them(loaded, feeds):
    runner = Runner(loaded, PRESETS["exact"])
    kept = runner.run(feeds, ["pattern"])["pattern"]
    copy = kept.copy()
    runner.run(inputs_of(loaded).arrays([7, 7, 7]), ["pattern"])
    runner.close()
    del runner
    gc.collect()
    assert np.array_equal(kept, copy)


def test_without_prepacking_all_sessions_read_the_same_weights(loaded, feeds, monkeypatch):
    monkeypatch.setattr(
        type(loaded.tensors), "__getitem__", lambda tensors, name: np.array(tensors._read(tensors._protos[name]))
    )
    runner = Runner(loaded, PRESETS["exact"])
    other = runner.other(loaded.copy())
    sessions = [(runner, ["logits"]), (runner, ["logits", "y"]), (other, ["logits"])]
    assert all(each.run(feeds, outputs)["logits"].any() for each, outputs in sessions)
    runner.shared._values["W_U"][1][:] = 0
    assert not any(each.run(feeds, outputs)["logits"].any() for each, outputs in sessions)


def test_weights_in_another_file_are_read_where_it_is_mapped(tmp_path):
    loaded = load(graphs.save_external(graphs.decoder(), tmp_path / "model.onnx"))
    value, array = Runner(loaded, PRESETS["exact"]).shared._value("wte", TensorProto.FLOAT)
    assert value.data_ptr() == array.ctypes.data == loaded.tensor("wte").ctypes.data


def test_an_edited_graph_is_fed_its_own_inputs(runner, loaded, feeds):
    proto = loaded.copy()
    added = helper.make_tensor_value_info("added", TensorProto.FLOAT, None)
    proto.graph.input.append(added)
    at = next(place for place, node in enumerate(proto.graph.node) if node.output[0] == "y")
    proto.graph.node[at].output[0] = "y before"
    proto.graph.node.insert(at + 1, helper.make_node("Add", ["y before", "added"], ["y"]))
    nothing = runner.other(proto).run({**feeds, "added": np.float32(0).reshape(1)}, ["logits"])["logits"]
    assert np.array_equal(nothing, runner.run(feeds, ["logits"])["logits"])
    moved = runner.other(proto).run({**feeds, "added": np.ones(graphs.WIDTH, np.float32)}, ["logits"])["logits"][0]
    assert np.allclose(moved, (graphs.computed(TOKENS)["y"] + 1) @ graphs.weights()["W_U"], atol=1e-5)


@pytest.mark.parametrize("kind", [TensorProto.BFLOAT16, TensorProto.FLOAT16, TensorProto.FLOAT8E4M3FN])
def test_types_that_numpy_lacks_are_fed_and_handed_over(kind, tmp_path):
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind))
    x, y = (helper.make_tensor_value_info(name, kind, ["n", 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    runner = Runner(load(graphs.save(proto, tmp_path / "model.onnx")), PRESETS["exact"])
    for rows in (2, 0):
        given = np.arange(3 * rows).reshape(rows, 3).astype(dtype)
        got = runner.run({"x": given}, ["y"])["y"]
        assert got.dtype == dtype and np.array_equal(got, given)
    runs = [runner.run({"x": np.full((5000, 3), seed).astype(dtype)}, ["y"])["y"] for seed in range(1, 8)]
    gc.collect()
    assert [set(made.astype(np.float32).flat) for made in runs] == [{float(seed)} for seed in range(1, 8)]


# -- pieces


def test_a_piece_runs_on_values_of_ours_of_any_length(runner):
    w = graphs.weights()
    for rows in (1, 5):
        y = np.random.default_rng(rows).standard_normal((1, rows, graphs.WIDTH)).astype(np.float32)
        got = runner.subgraph(["y"], ["logits"])({"y": y})["logits"]
        assert np.allclose(got, y @ w["W_U"], atol=1e-5)
    assert np.allclose(runner.subgraph(["y"], ["logits"])({"y": y[0]})["logits"], y[0] @ w["W_U"], atol=1e-5)


def test_a_piece_from_a_value_in_the_middle_of_two_paths_takes_both(runner):
    x = np.random.default_rng(0).standard_normal((1, 4, graphs.WIDTH)).astype(np.float32)
    pattern = np.full((1, 1, 4, 4), 0.25, np.float32)
    call = runner.subgraph(["embedded", "pattern", "past_key_values.0.value"], ["y", "present.value"])
    got = call(
        {"embedded": x, "pattern": pattern, "past_key_values.0.value": np.zeros((1, 1, 0, graphs.WIDTH), np.float32)}
    )
    v = x[0] @ graphs.weights()["W_V"]
    assert np.allclose(got["present.value"][0, 0], v, atol=1e-5)
    assert np.allclose(got["y"][0], x[0] + v.mean(0) @ graphs.weights()["W_O"], atol=1e-5)


def test_a_piece_of_values_that_are_given_hands_them_on(runner):
    y = np.ones((1, 2, graphs.WIDTH), np.float32)
    assert np.array_equal(runner.subgraph(["y"], ["y"])({"y": y})["y"], y)


def test_a_piece_is_made_once_for_each_type_and_number_of_axes(runner):
    for rows in (1, 2, 3):
        runner.subgraph(["y"], ["logits"])({"y": np.ones((1, rows, graphs.WIDTH), np.float32)})
    assert len(runner._pieces) == 1
    runner.subgraph(["y"], ["logits"])({"y": np.ones((2, graphs.WIDTH), np.float32)})
    assert len(runner._pieces) == 2


def test_a_piece_that_needs_more_says_what(runner):
    with pytest.raises(
        BackendError, match=r"pattern cannot be computed from embedded: it needs (past_key|attention_mask|input_ids)"
    ):
        runner.subgraph(["embedded"], ["pattern"])({"embedded": np.ones((1, 2, graphs.WIDTH), np.float32)})


# -- what goes wrong


def test_a_value_that_no_node_makes_is_named(runner, feeds):
    with pytest.raises(BackendError, match="has no value nothing"):
        runner.run(feeds, ["nothing"])


def test_a_closed_model_says_so(runner, feeds):
    runner.close()
    runner.close()
    with pytest.raises(ModelOpenError, match="is closed"):
        runner.run(feeds, ["logits"])


def test_a_prompt_beyond_the_positions_is_a_typed_error(runner, loaded):
    too_long = inputs_of(loaded).arrays([1] * (graphs.CONTEXT + 1))
    with pytest.raises(
        BackendError, match=r"stopped while it ran .*model\.onnx on .*input_ids \[1, 25\].*If this prompt is longer"
    ):
        runner.run(too_long, ["logits"])


def test_a_missing_or_misshapen_input_is_a_typed_error(runner, feeds):
    for wrong in (
        feeds | {"input_ids": feeds["input_ids"][0]},
        {"input_ids": feeds["input_ids"]},
        feeds | {"x": feeds["input_ids"]},
    ):
        with pytest.raises(BackendError, match=r"stopped while it ran|has no input x|is not fed its input"):
            runner.run(wrong, ["logits"])


def test_a_provider_that_is_not_installed_is_refused_with_those_that_are(loaded):
    with pytest.raises(OptionError, match=r"names NoSuchProvider, .* it has .*CPUExecutionProvider"):
        Runner(loaded, OnnxRuntimeOptions(providers="NoSuchProvider,CPUExecutionProvider")).open()
    with pytest.raises(OptionError):
        Runner(loaded, OnnxRuntimeOptions(providers=" , ")).open()


def test_an_operator_without_a_kernel_is_unsupported(tmp_path):
    x, y = (helper.make_tensor_value_info(name, TensorProto.BFLOAT16, ["n", 4, "m"]) for name in "xy")
    weight = numpy_helper.from_array(np.ones((4, 4, 1), ml_dtypes.bfloat16), "w")
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    with pytest.raises(UnsupportedModelError, match="no kernel"):
        Runner(load(graphs.save(proto, tmp_path / "model.onnx")), PRESETS["exact"]).open()


@pytest.mark.parametrize("saturating", [True, False])
def test_the_optimiser_is_told_to_sum_all_where_we_do(saturating, loaded):
    options = session_options(evolve(PRESETS["shipped"], saturating=saturating), loaded)
    if saturating:
        with pytest.raises(RuntimeError):  # nobody has set it
            options.get_session_config_entry("session.x64quantprecision")
    else:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"


def test_the_settings_name_all_that_changes_numbers(loaded):
    settings = Runner(loaded, evolve(PRESETS["shipped"], threads=3)).settings
    assert settings == {
        "optimization": "all", "prepacking": "true", "saturating": "true", "threads": "3", "providers": "CPUExecutionProvider", "deterministic": "false",
        "custom_ops": "none",
    }  # fmt: skip
