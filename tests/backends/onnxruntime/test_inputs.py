"""What each input is for follows from the graph, whatever it is called; what is fed makes the graph compute what it should."""

from __future__ import annotations

import json

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("llmtrace_onnxruntime")

from attrs import evolve
from onnx import TensorProto, helper, numpy_helper

from llmtrace.errors import UnsupportedModelError
from llmtrace_onnxruntime.cut import whole
from llmtrace_onnxruntime.inputs import inputs_of
from llmtrace_onnxruntime.options import PRESETS
from llmtrace_onnxruntime.proto import load
from llmtrace_onnxruntime.running import Runner
from tests.backends.onnxruntime import graphs

TOKENS = [3, 1, 4, 1, 5, 9, 2]
STRANGE = ("position_ids", "input_ids", "attention_mask", "cache_position", "num_logits_to_keep")
"""Names that say the opposite of what an input is for."""


def opened(proto, tmp_path):
    loaded = load(graphs.save(proto, tmp_path / "model.onnx"))
    return loaded, inputs_of(loaded)


def run(loaded, inputs, tokens=TOKENS):
    return Runner(loaded, PRESETS["exact"]).run(inputs.arrays(tokens), [inputs.logits])[inputs.logits][0]


def edited(proto, name, **changes):
    """The graph with the declaration of an input changed: its `shape`, or its `kind`."""
    value = next(value for value in proto.graph.input if value.name == name)
    kind = changes.get("kind", value.type.tensor_type.elem_type)
    shape = (
        changes["shape"]
        if "shape" in changes
        else [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
    )
    value.CopyFrom(helper.make_tensor_value_info(name, kind, shape))
    return proto


@pytest.mark.parametrize("names", [graphs.NAMES, STRANGE], ids=["usual names", "misleading names"])
@pytest.mark.parametrize("past", [True, False], ids=["cache", "no cache"])
def test_roles_follow_from_who_reads_an_input(names, past, tmp_path):
    loaded, inputs = opened(graphs.decoder(names=names, past=past), tmp_path)
    roles = dict(zip(names, ("tokens", "mask", "positions", "past", "past"), strict=True))
    assert {feed.name: feed.role for feed in inputs.feeds} == {name: roles[name] for name in names[: 5 if past else 3]}
    assert (
        inputs.tokens == names[0]
        and inputs.logits == "logits"
        and inputs.vocab == graphs.VOCAB
        and not inputs.last_only
    )
    assert inputs.caches == (("present.key", "present.value") if past else ())
    for tokens in (TOKENS, TOKENS[:1]):
        assert np.allclose(run(loaded, inputs, tokens), graphs.computed(tokens)["logits"], atol=1e-5)


@pytest.mark.parametrize("names", [graphs.NAMES, STRANGE], ids=["usual names", "misleading names"])
def test_a_mask_from_which_positions_are_counted_is_a_mask(names, tmp_path):
    proto = graphs.decoder(names=names, past=False)
    _, mask, positions = names[:3]
    counted = [
        helper.make_node("CumSum", [mask, "place"], ["running"]),
        helper.make_node("Mul", ["running", mask], ["marked"]),
        helper.make_node("Sub", ["marked", "first"], ["counted"]),
    ]
    for node in proto.graph.node:
        node.input[:] = ["counted" if name == positions else name for name in node.input]
    nodes = [*counted, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "place"))
    kept = [value for value in proto.graph.input if value.name != positions]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    loaded, inputs = opened(proto, tmp_path)
    assert {feed.name: feed.role for feed in inputs.feeds} == {names[0]: "tokens", mask: "mask"}
    assert np.allclose(run(loaded, inputs), graphs.computed(TOKENS)["logits"], atol=1e-5)


def test_a_table_of_positions_may_be_larger_than_the_vocabulary(tmp_path):
    proto = graphs.decoder(names=STRANGE)
    table = next(tensor for tensor in proto.graph.initializer if tensor.name == "wpe")
    rows = np.zeros((4 * graphs.VOCAB, graphs.WIDTH), np.float32)
    rows[: graphs.CONTEXT] = graphs.weights()["wpe"]
    table.CopyFrom(numpy_helper.from_array(rows, "wpe"))
    loaded, inputs = opened(proto, tmp_path)
    assert inputs.tokens == STRANGE[0]
    assert np.allclose(run(loaded, inputs), graphs.computed(TOKENS)["logits"], atol=1e-5)


@pytest.mark.parametrize(("mask", "role"), [("added", "added"), ("may", "may"), ("may_not", "may_not")])
def test_a_mask_of_query_and_key_is_filled_causally(mask, role, tmp_path):
    loaded, inputs = opened(graphs.decoder(names=STRANGE, mask=mask, past=False), tmp_path)
    assert {feed.role for feed in inputs.feeds} == {"tokens", role, "positions"}
    assert np.allclose(run(loaded, inputs), graphs.computed(TOKENS)["logits"], atol=1e-5)


def test_logits_need_not_be_the_first_output(tmp_path):
    _, inputs = opened(graphs.decoder(vocab_first=False), tmp_path)
    assert inputs.logits == "logits" and inputs.caches == ("present.key", "present.value")


def test_the_count_of_logits_is_all(tmp_path):
    loaded, inputs = opened(graphs.decoder(last="keep"), tmp_path)
    assert {feed.name: feed.role for feed in inputs.feeds}["num_logits_to_keep"] == "keep" and not inputs.last_only
    assert np.allclose(run(loaded, inputs), graphs.computed(TOKENS)["logits"], atol=1e-5)


@pytest.mark.parametrize("last", ["slice", "gather", "index", "after"])
def test_a_graph_of_the_last_logits_is_told_and_its_cut_taken_out(last, tmp_path):
    loaded, inputs = opened(graphs.decoder(last=last), tmp_path)
    assert inputs.last_only
    expected = graphs.computed(TOKENS)["logits"]
    assert np.allclose(run(loaded, inputs), expected[-1:], atol=1e-5)
    proto = whole(loaded, inputs.logits)
    uncut = evolve(loaded, proto=proto)
    assert np.allclose(run(uncut, inputs), expected, atol=1e-5)
    assert not inputs_of(uncut).last_only


def test_a_graph_without_a_cut_has_none_to_take_out(tmp_path):
    loaded, inputs = opened(graphs.decoder(), tmp_path)
    assert whole(loaded, inputs.logits) is None


def test_open_lengths_of_a_cache_are_those_of_what_it_becomes(tmp_path):
    proto = graphs.decoder()
    for name in graphs.NAMES[3:]:
        edited(proto, name, shape=["batch", "heads", "past", "width"])
    _, inputs = opened(proto, tmp_path)
    assert [feed.shape for feed in inputs.feeds if feed.role == "past"] == [(1, 1, 0, graphs.WIDTH)] * 2


def test_where_nothing_else_tells_the_config_of_genai_does(tmp_path):
    proto = graphs.decoder()
    for name in graphs.NAMES[3:]:
        edited(proto, name, shape=["batch", 1, "past", "width"])
    for value in proto.graph.output[1:]:
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ["batch", 1, "total", "width"]))
    with pytest.raises(
        UnsupportedModelError, match=r"nothing tells how long axis 3 of the cache past_key_values\.0\.key"
    ):
        opened(proto, tmp_path)
    (tmp_path / "genai_config.json").write_text(json.dumps({"model": {"decoder": {"head_size": graphs.WIDTH}}}))
    loaded, inputs = opened(proto, tmp_path)
    assert np.allclose(run(loaded, inputs), graphs.computed(TOKENS)["logits"], atol=1e-5)


def test_lengths_that_are_written_as_minus_one_are_open(tmp_path):
    loaded, inputs = opened(edited(graphs.decoder(), "input_ids", shape=[-1, -1]), tmp_path)
    assert np.allclose(run(loaded, inputs), graphs.computed(TOKENS)["logits"], atol=1e-5)


# -- fused attention


def attention(**attributes):
    """A block of grouped-query attention, with packed queries, keys and values, over caches of open width."""
    heads, kv, width = 2, 1, 16
    rng = np.random.default_rng(0)
    shapes = {"wte": (graphs.VOCAB, 32), "W_QKV": (32, (heads + 2 * kv) * width), "W_U": (heads * width, graphs.VOCAB)}
    inits = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name) for name, shape in shapes.items()
    ]
    inits += [
        numpy_helper.from_array(np.array(value, np.int64), name) for name, value in {"one": [1], "at1": 1}.items()
    ]
    made = helper.make_node(
        "GroupQueryAttention", ["qkv", "", "", "a", "b", "seqlens", "total"], ["z", "a2", "b2"], domain="com.microsoft",
        num_heads=heads, kv_num_heads=kv, **attributes,
    )  # fmt: skip
    nodes = [
        graphs.node("Gather", "wte ids", "x"), graphs.node("MatMul", "x W_QKV", "qkv"),
        graphs.node("ReduceSum", "mask one", "count", keepdims=0), graphs.node("Sub", "count one", "before"),
        graphs.node("Cast", "before", "seqlens", to=TensorProto.INT32), graphs.node("Shape", "mask", "lengths"),
        graphs.node("Gather", "lengths at1", "long"), graphs.node("Cast", "long", "total", to=TensorProto.INT32),
        made, graphs.node("MatMul", "z W_U", "logits"),
    ]  # fmt: skip
    value = helper.make_tensor_value_info
    fed = [value("ids", TensorProto.INT64, ["b", "n"]), value("mask", TensorProto.INT64, ["b", "t"])]
    fed += [value(name, TensorProto.FLOAT, ["b", "kv", "past", "width"]) for name in "ab"]
    outs = [
        value("logits", 1, ["b", "n", graphs.VOCAB]),
        *(value(name, 1, ["b", "kv", "t", "width"]) for name in ("a2", "b2")),
    ]
    graph = helper.make_graph(nodes, "g", fed, outs, inits)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)], ir_version=8
    )


def attended(tokens, window=None):
    """The same in NumPy."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in attention().graph.initializer}
    qkv = weights["wte"][np.asarray(tokens)] @ weights["W_QKV"]
    n = len(tokens)
    q, k, v = qkv[:, :32].reshape(n, 2, 16), qkv[:, 32:48], qkv[:, 48:]
    far = np.arange(n)[:, None] - np.arange(n)
    scores = np.where((far >= 0) & (far < (window or n)), np.einsum("qhd,kd->hqk", q, k) / 4, -np.inf)
    pattern = np.exp(scores - scores.max(-1, keepdims=True))
    pattern /= pattern.sum(-1, keepdims=True)
    return np.einsum("hqk,kd->qhd", pattern, v).reshape(n, 32) @ weights["W_U"]


def test_widths_of_a_fused_attentions_caches_follow_from_its_heads(tmp_path):
    loaded, inputs = opened(attention(), tmp_path)
    assert {feed.role for feed in inputs.feeds} == {"tokens", "mask", "past"}
    assert [feed.shape for feed in inputs.feeds if feed.role == "past"] == [(1, 1, 0, 16)] * 2
    assert np.allclose(run(loaded, inputs), attended(TOKENS), rtol=1e-4, atol=1e-3)


def test_a_ring_is_as_long_as_its_window_and_the_prompt_but_one(tmp_path):
    loaded, inputs = opened(attention(sliding_window_cache=1, local_window_size=3), tmp_path)
    assert [feed.shape for feed in inputs.feeds if feed.role == "ring"] == [(1, 1, ("n", 2), 16)] * 2
    assert np.allclose(run(loaded, inputs), attended(TOKENS, window=3), rtol=1e-4, atol=1e-3)


# -- what is refused


def test_an_unknown_input_is_named_with_its_type_and_shape(tmp_path):
    proto = graphs.decoder()
    proto.graph.input.append(helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, 224, 224]))
    with pytest.raises(
        UnsupportedModelError,
        match=r"the input pixel_values \(float, \['batch', 3, 224, 224\]\) is none that a decoder",
    ):
        opened(proto, tmp_path)


def test_a_type_that_nobody_knows_is_named(tmp_path):
    proto = graphs.decoder()
    proto.graph.input[0].type.tensor_type.elem_type = 99
    with pytest.raises(UnsupportedModelError, match="type 99"):
        opened(proto, tmp_path)


def test_a_graph_that_takes_embeddings_says_that_no_input_takes_tokens(tmp_path):
    proto = graphs.decoder()
    del proto.graph.node[0]
    edited(proto, "input_ids", kind=TensorProto.FLOAT, shape=["batch", "sequence", graphs.WIDTH])
    for node in proto.graph.node:
        node.input[:] = ["input_ids" if name == "token_part" else name for name in node.input]
    with pytest.raises(UnsupportedModelError, match=r"the input input_ids \(float"):
        inputs_of(load(graphs.save(proto, tmp_path / "model.onnx")))


@pytest.mark.parametrize("shape", [[1, 16], ["batch", 1]])
def test_a_fixed_length_is_refused_with_the_way_out(shape, tmp_path):
    with pytest.raises(
        UnsupportedModelError, match=f"input_ids takes exactly {shape[1]} tokens: export .* dynamic length"
    ):
        opened(edited(graphs.decoder(), "input_ids", shape=shape), tmp_path)


def test_a_fixed_batch_is_refused(tmp_path):
    with pytest.raises(UnsupportedModelError, match="input_ids takes exactly 4 prompts at once"):
        opened(edited(graphs.decoder(), "input_ids", shape=[4, "sequence"]), tmp_path)


def test_a_cache_of_fixed_length_is_refused(tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"past_key_values\.0\.key has the fixed shape \[1, 1, 8, 16\]"):
        opened(edited(graphs.decoder(), graphs.NAMES[3], shape=[1, 1, 8, graphs.WIDTH]), tmp_path)


def test_a_graph_without_logits_is_refused(tmp_path):
    proto = graphs.decoder()
    del proto.graph.output[0]
    proto.graph.output.insert(
        0, helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "sequence", graphs.WIDTH])
    )
    with pytest.raises(UnsupportedModelError, match="can be logits"):
        opened(proto, tmp_path)


def test_a_classifier_of_images_is_refused(tmp_path):
    value = helper.make_tensor_value_info
    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["map"])],
        "g",
        [value("image", 1, [1, 3, 8, 8])],
        [value("map", 1, [1, 4, 6, 6])],
        [weight],
    )
    with pytest.raises(UnsupportedModelError):
        opened(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path)
