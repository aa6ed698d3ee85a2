"""What attention operators do before heads meet is done by operators of its own, and both compute the same; what a CPU has no kernel for, too."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("llmtrace_onnxruntime")

from onnx import TensorProto, helper, numpy_helper

from llmtrace_onnxruntime.spelling import spelled

OWN = {"domain": "com.microsoft"}
TOKENS, HEADS, WIDTH = 6, 2, 8
FLAT = HEADS * WIDTH
RANDOM = np.random.default_rng(0)


def drawn(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


HELD = {
    "W": drawn(10, 3 * FLAT), "wide": drawn(10, 2 * FLAT + 2 * FLAT), "b": drawn(3 * FLAT), "c": drawn(4 * FLAT), "odd": drawn(3 * FLAT + 2),
}  # fmt: skip
GIVEN = {
    "x": drawn(1, TOKENS, 10), "q": drawn(1, TOKENS, FLAT), "k": drawn(1, TOKENS, FLAT), "v": drawn(1, TOKENS, FLAT),
    "qkv": drawn(1, TOKENS, HEADS, 3, WIDTH), "kv": drawn(1, TOKENS, HEADS, 2, WIDTH), "added": drawn(1, HEADS, TOKENS, TOKENS),
    "told": np.array([[1, 1, 1, 1, 0, 1]], np.int32), "past": drawn(2, 1, HEADS, 0, WIDTH),
}  # fmt: skip


def node(op, reads, makes="y", **attributes):
    names = ["" if name == "-" else name for name in reads.split()]
    return helper.make_node(op, names, makes.split(), num_heads=HEADS, unidirectional=1, **attributes, **OWN)


def graph(one):
    read = {name for name in one.input if name}
    given = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in GIVEN.items()
        if name in read
    ]
    outs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in one.output]
    held = [numpy_helper.from_array(array, name) for name, array in HELD.items() if name in read]
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(helper.make_graph([one], "g", given, outs, held), opset_imports=sets, ir_version=10)


def apart(model):
    return spelled(model, {name: array.shape for name, array in HELD.items()}).model


def run(model):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(["y"], {each.name: GIVEN[each.name] for each in session.get_inputs()})[0]


def attended(q, k, v):
    """What each query finds, [1, token, head * channel]: causal softmax attention, in float64."""
    q, k, v = (each.reshape(TOKENS, HEADS, WIDTH).astype(np.float64) for each in (q, k, v))
    scores = np.einsum("qhc,khc->hqk", q, k) / np.sqrt(WIDTH)
    scores = np.where(np.tri(TOKENS, dtype=bool), scores, -np.inf)
    pattern = np.exp(scores - scores.max(-1, keepdims=True))
    pattern /= pattern.sum(-1, keepdims=True)
    return np.einsum("hqk,khc->qhc", pattern, v).reshape(1, TOKENS, FLAT)


@pytest.mark.parametrize(
    "one",
    [
        node("Attention", "x W b"),
        node("Attention", "x W"),
        node("Attention", "x W b told", scale=0.3),
        node("Attention", "x W b told - added", mask_filter_value=-3e4),
        node("Attention", "x W b - past", "y present"),
        node("Attention", "x wide c", qkv_hidden_sizes=[FLAT, FLAT, 2 * FLAT]),
        node("MultiHeadAttention", "q k v b"),
        node("MultiHeadAttention", "q k v b told added", scale=0.3),
    ],
    ids=lambda one: f"{one.op_type} of {' '.join(filter(None, one.input))}",
)
def test_parts_compute_what_the_whole_does(one):
    whole = graph(one)
    found = apart(whole)
    last = next(each for each in found.graph.node if each.output[0] == "y")
    assert last.op_type == "MultiHeadAttention"
    assert not last.input[3]
    assert [each.op_type for each in found.graph.node].count("MatMul") == (one.op_type == "Attention")
    np.testing.assert_allclose(run(found), run(whole), atol=1e-6)


def test_what_is_packed_by_head_is_unpacked():
    """ONNX Runtime has no such kernel for a CPU; so the formula says what comes out."""
    packed = apart(graph(node("MultiHeadAttention", "qkv")))
    np.testing.assert_allclose(run(packed), attended(*np.moveaxis(GIVEN["qkv"], 3, 0)), atol=1e-5)
    half = apart(graph(node("MultiHeadAttention", "q kv")))
    np.testing.assert_allclose(run(half), attended(GIVEN["q"], *np.moveaxis(GIVEN["kv"], 3, 0)), atol=1e-5)


def test_an_attention_whose_past_is_empty_hands_no_keys_out():
    """What is read need not be what is cached."""
    assert [value.name for value in apart(graph(node("Attention", "x W b", "y present"))).graph.output] == ["y"]


@pytest.mark.parametrize(
    "one",
    [
        node("MultiHeadAttention", "q k v"),
        node("MultiHeadAttention", "q k v odd"),
        node("Attention", "x W b", do_rotary=1),
        node("Attention", "x W b - past", "y present", past_present_share_buffer=1),
        helper.make_node("Attention", ["q", "k", "v"], ["y"], q_num_heads=HEADS, kv_num_heads=HEADS),
    ],
    ids=["nothing hidden", "unequal parts", "turns by itself", "a cache that it writes to", "ONNX's own"],
)
def test_what_hides_nothing_and_what_is_not_known_stays(one):
    whole = graph(one)
    assert apart(whole) is whole
