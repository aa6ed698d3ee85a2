"""What is opened, how little of it is read, and what is refused: damaged files, and what ONNX Runtime does not know."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("llmtrace_onnxruntime")

import ml_dtypes
from onnx import TensorProto, helper, numpy_helper

from llmtrace.errors import ModelOpenError, OptionError, UnsupportedModelError
from llmtrace_onnxruntime.options import OnnxRuntimeOptions
from llmtrace_onnxruntime.proto import load
from llmtrace_onnxruntime.running import Runner
from tests.backends.onnxruntime import graphs
from tests.backends.onnxruntime.opening import TOKENS, logits_of

# -- what is read


def test_large_weights_stay_in_the_file_whichever_file_that_is(single, parted):
    for path in (single, parted):
        loaded = load(path)
        assert (
            loaded.proto.ByteSize() < 8000 < path.with_name("model.onnx.data").stat().st_size
            if path == parted
            else True
        )
        for name, weight in graphs.weights().items():
            assert np.array_equal(loaded.tensors[name], weight)
            assert not loaded.tensors[name].flags.writeable
            assert loaded.tensors.shapes[name] == weight.shape and loaded.tensors.stored[name] == "float32"
        held = next(tensor for tensor in loaded.graph.initializer if tensor.name == "wte")
        assert held.data_location == TensorProto.EXTERNAL and not held.raw_data


def test_what_is_opened_computes_what_the_file_says(single, parted):
    for path in (single, parted, parted.parent):
        assert np.allclose(logits_of(path), graphs.computed(TOKENS)["logits"], atol=1e-5)


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (TensorProto.FLOAT16, np.float16), (TensorProto.BFLOAT16, ml_dtypes.bfloat16), (TensorProto.DOUBLE, np.float64),
        (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn), (TensorProto.INT8, np.int8), (TensorProto.UINT8, np.uint8),
        (TensorProto.INT4, ml_dtypes.int4), (TensorProto.UINT4, ml_dtypes.uint4), (TensorProto.BOOL, np.bool_),
    ],
)  # fmt: skip
def test_weights_of_every_type_are_read(kind, dtype, outside, tmp_path):
    numbers = np.random.default_rng(0).integers(0, 7, (80, 128)).astype(dtype)
    weight = numpy_helper.from_array(numbers, "w")
    assert weight.data_type == kind
    x, y = (helper.make_tensor_value_info(name, 1, ["n"]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y], [weight])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    loaded = load((graphs.save_external if outside else graphs.save)(proto, tmp_path / "model.onnx"))
    assert loaded.tensor("w").dtype == dtype and loaded.tensors.stored["w"] == np.dtype(dtype).name
    assert np.array_equal(loaded.tensor("w").astype(np.float32), numbers.astype(np.float32))


def test_constants_are_read_by_the_name_of_their_value(single):
    assert load(single).tensor("one_two").tolist() == [1, 2]


def test_small_weights_are_read_only_as_large_ones_are(model, tmp_path):
    def typed(proto):  # as numbers, not as bytes
        next(each for each in proto.graph.initializer if each.name == "low").CopyFrom(
            helper.make_tensor("low", 1, [], [-1e9])
        )

    loaded = load(changed(model, tmp_path, typed))
    assert loaded.tensor("low") == -1e9 and not loaded.tensor("low").flags.writeable


def test_the_fingerprint_is_that_of_the_files_and_not_of_their_names(parted, model, tmp_path):
    moved = tmp_path / "moved"
    parted.parent.rename(moved)
    first = load(moved / "model.onnx").fingerprint
    (moved / "model.onnx").rename(moved / "other.onnx")
    assert load(moved / "other.onnx").fingerprint == first
    data = moved / "model.onnx.data"
    data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
    assert load(moved / "other.onnx").fingerprint != first


# -- damaged files


def test_an_empty_file_is_refused_by_name(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(ModelOpenError, match=r"model\.onnx is empty\. Fetch"):
        load(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"GGUF\3\0\0\0", "a GGUF file"), (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"), (b"<!doctype html>", "markup"),
        (b"PK\3\4....", "an archive"), (b"\x1c\0\0\0ORTM....", "ORT"), (b'{"a": 1}', "JSON"),
    ],
)  # fmt: skip
def test_other_files_are_told_what_they_are(content, said, tmp_path):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelOpenError, match=said):
        load(tmp_path / "model.onnx")


def test_a_file_that_was_cut_off_anywhere_is_refused(single):
    raw = single.read_bytes()
    for size in (1, 2, 3, 10, len(raw) // 3, len(raw) // 2, len(raw) - 5000, len(raw) - 1):
        single.write_bytes(raw[:size])
        with pytest.raises(ModelOpenError, match=r"model\.onnx"):
            load(single)


def test_a_message_of_nothing_is_no_model(tmp_path):
    for proto in (
        onnx.ModelProto(producer_name="x"),
        onnx.ModelProto(ir_version=8),
        helper.make_model(helper.make_graph([], "g", [], [])),
    ):
        with pytest.raises(ModelOpenError, match="has no graph"):
            load(graphs.save(proto, tmp_path / "model.onnx"))


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(ModelOpenError, match="cannot be read: No such file"):
        load(tmp_path / "model.onnx")


def test_names_that_are_no_text_are_refused(single):
    raw = single.read_bytes()
    single.write_bytes(raw.replace(b"embedded", b"embed\xffed"))
    with pytest.raises(ModelOpenError, match=r"is damaged: the name .* is not UTF-8"):
        load(single)


def test_a_value_that_is_made_twice_is_named(model, tmp_path):
    twice = onnx.ModelProto()
    twice.CopyFrom(model)
    twice.graph.node.append(helper.make_node("Identity", ["y"], ["embedded"]))
    with pytest.raises(ModelOpenError, match="embedded is made twice"):
        load(graphs.save(twice, tmp_path / "model.onnx"))


# -- what ONNX Runtime does not know


def changed(model, tmp_path, change):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    change(copy)
    return graphs.save(copy, tmp_path / "model.onnx")


def test_an_operator_set_from_the_future_is_refused_with_both_ways_out(model, tmp_path):
    path = changed(model, tmp_path, lambda proto: setattr(proto.opset_import[0], "version", 99))
    with pytest.raises(
        UnsupportedModelError, match=r"ai\.onnx 99, which ONNX Runtime .* refuses.* Upgrade onnxruntime, or export"
    ):
        load(path)


def test_a_version_from_the_future_is_refused(model, tmp_path):
    with pytest.raises(UnsupportedModelError, match="IR version 99"):
        load(changed(model, tmp_path, lambda proto: setattr(proto, "ir_version", 99)))


def custom(proto):
    proto.opset_import.append(helper.make_opsetid("my.ops", 1))
    proto.graph.node[2].domain, proto.graph.node[2].op_type = "my.ops", "Add"


def test_custom_operators_are_named_with_the_option_that_allows_them(model, tmp_path):
    path = changed(model, tmp_path, custom)
    with pytest.raises(UnsupportedModelError, match=r"'node of embedded' is Add of my\.ops.*option custom_ops"):
        load(path)
    with pytest.raises(OptionError, match="which is no file"):
        load(path, OnnxRuntimeOptions(custom_ops=str(tmp_path / "lib.so")))
    (tmp_path / "lib.so").write_bytes(b"no library")
    loaded = load(path, OnnxRuntimeOptions(custom_ops=str(tmp_path / "lib.so")))
    with pytest.raises(OptionError, match=r"lib\.so, which cannot be loaded"):
        Runner(loaded, OnnxRuntimeOptions()).open()


def test_an_unknown_operator_is_named_with_its_likeness(model, tmp_path):
    path = changed(model, tmp_path, lambda proto: setattr(proto.graph.node[2], "op_type", "Addd"))
    with pytest.raises(UnsupportedModelError, match=r"is Addd of 'ai\.onnx'|is Addd of ai\.onnx.*Did you mean"):
        load(path)


# -- graphs in graphs


def test_functions_are_put_in_place_of_their_calls(model, tmp_path):
    def call(proto):
        opset = [helper.make_opsetid("", 17)]
        proto.functions.append(
            helper.make_function("mine", "Sum2", ["a", "b"], ["c"], [helper.make_node("Add", ["a", "b"], ["c"])], opset)
        )
        proto.opset_import.append(helper.make_opsetid("mine", 1))
        proto.graph.node[2].domain, proto.graph.node[2].op_type = "mine", "Sum2"

    path = changed(model, tmp_path, call)
    loaded = load(path)
    assert not loaded.proto.functions and {each.domain for each in loaded.graph.node} == {""}
    assert np.allclose(logits_of(path), graphs.computed(TOKENS)["logits"], atol=1e-5)


def merged(model):
    """The decoder in both branches of a choice, as optimum writes it: with a cache, and without."""
    plain, cached = graphs.decoder(past=False).graph, model.graph
    both = {tensor.name: tensor for tensor in [*plain.initializer, *cached.initializer]}
    outputs = [helper.make_tensor_value_info("logits", 1, None)]

    def branch(graph, prefix):
        nodes = []
        for each in graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(each)
            copy.output[:] = [f"{prefix}{name}" for name in each.output]
            made = {name for other in graph.node for name in other.output}
            copy.input[:] = [f"{prefix}{name}" if name in made else name for name in each.input]
            nodes.append(copy)
        return helper.make_graph(nodes, prefix, [], [helper.make_tensor_value_info(f"{prefix}logits", 1, None)])

    node = helper.make_node(
        "If", ["use_cache_branch"], ["logits"], then_branch=branch(cached, "with."), else_branch=branch(plain, "no.")
    )
    fed = [*cached.input, helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1])]
    graph = helper.make_graph([node], "merged", fed, outputs, list(both.values()))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_of_a_merged_decoder_the_branch_without_a_cache_is_run_and_said(model, tmp_path):
    path = graphs.save(merged(model), tmp_path / "decoder_model_merged.onnx")
    loaded = load(path)
    assert not {"If", "Identity"} & {each.op_type for each in loaded.graph.node}
    assert [value.name for value in loaded.graph.input] == ["input_ids", "position_ids", "attention_mask"]
    assert any("the one without is run" in note for note in loaded.notes)
    assert np.allclose(logits_of(path), graphs.computed(TOKENS)["logits"], atol=1e-5)


def test_nodes_in_another_order_are_put_in_theirs_and_a_circle_is_refused(model, tmp_path):
    def reversed_order(proto):
        nodes = [onnx.NodeProto.FromString(each.SerializeToString()) for each in reversed(proto.graph.node)]
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)

    path = changed(model, tmp_path, reversed_order)
    assert np.allclose(logits_of(path), graphs.computed(TOKENS)["logits"], atol=1e-5)
    path = changed(model, tmp_path, lambda proto: proto.graph.node[2].input.__setitem__(0, "y"))
    with pytest.raises(ModelOpenError, match="is made of itself"):
        load(path)
