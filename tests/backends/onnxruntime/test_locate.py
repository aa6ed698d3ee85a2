"""Graphs that are no decoders, and decoders with one thing in them that no spec has words for: a refusal that names the place, or a branch of
which nothing is claimed. Never a wrong claim.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("llmtrace_onnxruntime")

from onnx import helper, numpy_helper

from llmtrace.errors import UnsupportedModelError
from llmtrace.spec import Branch, Carry, Mixer
from tests.backends.onnxruntime.opening import opaque, open_graph, signals, write
from tests.backends.onnxruntime.test_writing_features import FEATURES
from tests.backends.onnxruntime.written import TOKENS, computed, drawn

BASE = FEATURES["nothing else"]
VOCAB, WIDTH = 40, 16


# -- no decoders


def save(path, nodes, weights, inputs, output):
    """A graph of few nodes."""
    graph = helper.make_graph(
        nodes, "graph", [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, output)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


IDS = [("input_ids", onnx.TensorProto.INT64, ["batch", "sequence"])]
TABLE = np.random.default_rng(0).normal(size=(VOCAB, WIDTH)).astype(np.float32)


def a_cnn(path):
    kernel = np.ones((4, 3, 3, 3), np.float32)
    nodes = [
        helper.make_node("Conv", ["pixels", "kernel"], ["h"]),
        helper.make_node("GlobalAveragePool", ["h"], ["logits"]),
    ]
    image = [("pixels", onnx.TensorProto.FLOAT, ["batch", 3, 8, 8])]
    return save(path, nodes, {"kernel": kernel}, image, ["batch", 4, 1, 1])


def a_bag_of_words(path):
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("ReduceMean", ["rows"], ["mean"], axes=[1]),
        helper.make_node("MatMul", ["mean", "head"], ["logits"]),
    ]
    return save(path, nodes, {"table": TABLE, "head": TABLE.T}, IDS, ["batch", 1, VOCAB])


def a_table_and_a_head(path):
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "head"], ["logits"]),
    ]
    return save(path, nodes, {"table": TABLE, "head": TABLE.T}, IDS, ["batch", "sequence", VOCAB])


def layers_without_a_stream(path):
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "square"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("MatMul", ["t", "head"], ["logits"]),
    ]
    return save(
        path, nodes, {"table": TABLE, "head": TABLE.T, "square": TABLE[:WIDTH]}, IDS, ["batch", "sequence", VOCAB]
    )


def ids_that_are_no_index(path):
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["floats"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["floats", "last"], ["column"]),
        helper.make_node("MatMul", ["column", "row"], ["logits"]),
    ]
    weights = {"last": np.array([2]), "row": np.ones((1, VOCAB), np.float32)}
    return save(path, nodes, weights, IDS, ["batch", "sequence", VOCAB])


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (a_cnn, "no output of logits can be logits"),
        (a_bag_of_words, "residual stream|logits"),
        (a_table_and_a_head, "without a residual stream"),
        (layers_without_a_stream, "without a residual stream"),
        (ids_that_are_no_index, "token ids|No table is looked up"),
    ],
)
def test_what_is_no_decoder_is_refused(make, why, tmp_path):
    with pytest.raises(UnsupportedModelError, match=why):
        open_graph(make(tmp_path / "model.onnx"))


# -- decoders with one wrong thing in them


class Hand:
    """Changes nodes of a written graph. Those of one operator are counted from the first."""

    def __init__(self, graph):
        self.graph = graph

    def nodes(self, op):
        return [node for node in self.graph.node if node.op_type == op]

    def readers(self, name):
        return [node for node in self.graph.node if name in node.input]

    def maker(self, name):
        return next(node for node in self.graph.node if name in node.output)

    def constant(self, array, name="new constant"):
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def after(self, name, op, *others, first=True, **attributes):
        """What reads a value reads `op` of it instead."""
        at = next(place for place, node in enumerate(self.graph.node) if name in node.output) + 1
        reads = [name, *others] if first else [*others, name]
        for node in self.readers(name):
            for place, read in enumerate(node.input):
                if read == name:
                    node.input[place] = f"{name} changed"
        self.graph.node.insert(at, helper.make_node(op, reads, [f"{name} changed"], **attributes))

    def streams(self):
        """The sums of the stream: those of two values that are made of tokens."""
        constants = {tensor.name for tensor in self.graph.initializer}
        linear = {node.output[0] for node in self.nodes("MatMul")}
        return [node for node in self.nodes("Add") if linear & set(node.input) and not constants & set(node.input)]


def eps_outside_of_the_root(hand, which=0):
    """Of the first norm, or of another."""
    root = hand.nodes("Sqrt")[which]
    add = hand.maker(root.input[0])
    mean, eps = add.input
    add.op_type, root.op_type = "Sqrt", "Add"
    del add.input[:], root.input[:]
    add.input.extend([mean])
    root.input.extend([add.output[0], eps])


def eps_outside_of_the_last_root(hand):
    eps_outside_of_the_root(hand, -1)


def a_strange_activation(hand):
    hand.nodes("Sigmoid")[0].op_type = "Softsign"


def halves_that_are_added(hand):
    """Not multiplied."""
    gate = hand.readers(hand.nodes("Sigmoid")[0].output[0])[0]
    hand.readers(gate.output[0])[0].op_type = "Add"


def rotary_without_a_minus(hand):
    hand.nodes("Neg")[0].op_type = "Identity"


def rotary_the_other_way(hand):
    """From the second channel to the first, in all layers."""
    for node in hand.nodes("Sin"):
        hand.after(node.output[0], "Neg")


def a_mask_that_sees_one_ahead(hand):
    (seen,) = hand.nodes("LessOrEqual")
    hand.after(seen.input[0], "Sub", hand.constant(np.array(1)))


def a_mask_that_hides_the_token_itself(hand):
    hand.nodes("LessOrEqual")[0].op_type = "Less"


def no_mask(hand):
    """An encoder: all see all."""
    (seen,) = hand.nodes("LessOrEqual")
    seen.op_type = "Equal"
    seen.input[1] = seen.input[0]


def a_pattern_that_does_not_sum_to_one(hand):
    hand.after(hand.nodes("Softmax")[0].output[0], "Mul", hand.constant(np.float32(0.9)))


def a_softmax_over_queries(hand):
    node = hand.nodes("Softmax")[0]
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("axis", -2))


def keys_for_every_other_head(hand):
    """Heads 0 and 2 read the first keys, not 0 and 1."""
    keys = [node for node in hand.nodes("Unsqueeze") if hand.readers(node.output[0])[0].op_type == "Expand"]
    for node in keys:
        node.input[1] = hand.constant(np.array([1]), f"axis of {node.output[0]}")
        expand = hand.readers(node.output[0])[0]
        expand.input[1] = hand.constant(np.array([1, 2, 1, 1, 1]), f"shape of {node.output[0]}")


def channels_of_a_branch_the_other_way_round(hand):
    hand.after(hand.streams()[0].input[1], "Gather", hand.constant(np.arange(63, -1, -1)), axis=2)


def values_of_another_norm(hand):
    """A value projection that reads the stream itself."""
    product = [node for node in hand.nodes("MatMul") if node.input[1].startswith("constant")][2]
    product.input[0] = hand.streams()[0].input[0]


def a_query_bias_after_rotary(hand):
    """Of the first layer: a constant is added where heads meet."""
    scores = next(node for node in hand.nodes("MatMul") if not node.input[1].startswith("constant"))
    hand.after(scores.input[0], "Add", hand.constant(np.float32(0.3)))


OPAQUE = [
    (eps_outside_of_the_root, "attn", "norm"),
    (a_strange_activation, "mlp", "joined in no way|activation"),
    (halves_that_are_added, "mlp", "joined in no way"),
    (a_mask_that_sees_one_ahead, "attn", "scores"),
    (a_mask_that_hides_the_token_itself, "attn", "scores"),
    (no_mask, "attn", "scores"),
    (a_pattern_that_does_not_sum_to_one, "attn", "off by"),
    (a_softmax_over_queries, "attn", "off by"),
    (keys_for_every_other_head, "attn", "side by side"),
    (channels_of_a_branch_the_other_way_round, "attn", "off by"),
]
"""The change, the branch that is unlike a decoder's, and why."""
UNPROJECTED = [
    (rotary_without_a_minus, "rotary"),
    (values_of_another_norm, "different values"),
    (a_query_bias_after_rotary, "Add"),
]
"""The change after which it is not known how queries, keys and values are made, and why."""


@pytest.fixture(scope="module")
def source():
    return drawn(BASE)


@pytest.fixture(scope="module")
def plainly(source, tmp_path_factory):
    """The logits of the unchanged graph."""
    return computed(write(source, tmp_path_factory.mktemp("plain")))


@pytest.mark.parametrize(("change", "branch", "why"), OPAQUE, ids=[each[0].__name__ for each in OPAQUE])
def test_of_a_branch_that_no_spec_has_words_for_nothing_is_claimed(change, branch, why, source, plainly, tmp_path):
    path = write(source, tmp_path, change=lambda graph: change(Hand(graph)))
    assert np.abs(computed(path) - plainly).max() > 1e-7, "the change changes nothing"
    with open_graph(path) as model:
        assert f"blocks.0.{branch}" in opaque(model.spec)
        assert all(isinstance(each.module, Mixer) == (each.name == branch) for each in model.spec.blocks[0].branches)
        (note,) = (note for note in model.info.notes if note.startswith("blocks.0."))
        assert note.startswith(f"blocks.0.{branch} is captured as a whole and no equation is claimed: ")
        assert re.search(why, note), note
        known = {"attn": "mlp", "mlp": "attn"}[branch]
        assert f"blocks.0.{known}_out" in model.session.offers
        assert not [each for each in model.verify(list(TOKENS)) if each.status == "violated"]
        assert not [each for each in model.verify([3, 1]) if each.status == "violated"]
        found = signals(
            model, TOKENS, capture=[f"blocks.0.{branch}_out", "blocks.0.resid_pre", "blocks.0.resid_mid", "logits"]
        )
        assert np.allclose(found["logits"], computed(path), atol=1e-5)
        if branch == "attn":
            total = found["blocks.0.resid_pre"] + found["blocks.0.attn_out"]
            assert np.allclose(total, found["blocks.0.resid_mid"], atol=1e-5)


@pytest.mark.parametrize(("change", "why"), UNPROJECTED, ids=[each[0].__name__ for each in UNPROJECTED])
def test_where_it_is_not_known_how_heads_are_made_what_is_made_of_them_is(change, why, source, plainly, tmp_path):
    path = write(source, tmp_path, change=lambda graph: change(Hand(graph)))
    assert np.abs(computed(path) - plainly).max() > 1e-7, "the change changes nothing"
    with open_graph(path) as model:
        assert not model.spec.blocks[0].attention.projected
        assert {"W_O"} == {name.rpartition(".")[2] for name in model.weights if name.startswith("blocks.0.attn.")}
        (note,) = (note for note in model.info.notes if note.startswith("blocks.0."))
        assert re.match(f"blocks.0.attn.rot_q is captured as a whole and no equation is claimed: .*{why}", note), note
        verdicts = {each.site: each.status for each in model.verify(list(TOKENS))}
        assert "violated" not in verdicts.values()
        assert verdicts["blocks.0.attn.z"] == "holds"
        assert np.allclose(signals(model, TOKENS, capture=["logits"])["logits"], computed(path), atol=1e-5)


def test_rotary_may_turn_the_other_way(source, plainly, tmp_path):
    path = write(source, tmp_path, change=lambda graph: rotary_the_other_way(Hand(graph)))
    assert np.abs(computed(path) - plainly).max() > 1e-7
    with open_graph(path) as model:
        assert all(block.attention.rotary.backwards for block in model.spec.blocks)
        assert not [each for each in model.verify(list(TOKENS)) if each.status == "violated"]


def a_norm_on_the_stream(hand):
    ones = hand.constant(np.ones(64, np.float32))
    hand.after(hand.streams()[0].output[0], "LayerNormalization", ones, axis=-1)


def two_norms_on_the_stream(hand):
    """The second is the branch's own."""
    ones = hand.constant(np.ones(64, np.float32))
    hand.after(hand.streams()[1].output[0], "LayerNormalization", ones, axis=-1)


def a_stream_that_is_half_of_itself(hand):
    """On the way past the branch only."""
    node = hand.streams()[0]
    at = list(hand.graph.node).index(node)
    hand.graph.node.insert(at, helper.make_node("Mul", [node.input[0], hand.constant(np.float32(0.5))], ["half"]))
    node.input[0] = "half"


def a_factor_for_each_channel_of_the_stream(hand):
    hand.after(hand.streams()[1].output[0], "Mul", hand.constant(np.linspace(0.5, 1.5, 64, dtype=np.float32)))


def a_stream_through_a_tanh(hand):
    hand.after(hand.streams()[1].output[0], "Tanh")


def two_heads_behind_each_other(hand):
    hand.after(hand.maker("logits").input[0], "MatMul", hand.constant(np.eye(64, dtype=np.float32) * 2))


def something_after_the_logits(hand):
    """Neither a scale nor a cap."""
    node = hand.maker("logits")
    node.output[0] = "before"
    hand.graph.node.append(helper.make_node("Sin", ["before"], ["logits"]))


def positions_that_follow_from_no_table(hand):
    """A ramp of positions is added to the embedding."""
    (look_up,) = (node for node in hand.nodes("Gather") if node.input[1] == "input_ids")
    at = next(place for place, node in enumerate(hand.graph.node) if node is look_up) + 1
    new = [
        helper.make_node("Cast", ["input_ids"], ["ids as numbers"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["ids as numbers", hand.constant(np.array([2]), "axis two")], ["column"]),
        helper.make_node("Mul", ["column", hand.constant(np.float32(0.1), "tenth")], ["ramp"]),
    ]
    hand.after(look_up.output[0], "Add", "ramp")
    for node in reversed(new):
        hand.graph.node.insert(at, node)


REFUSED = [
    (a_factor_for_each_channel_of_the_stream, "multiplied by a number a channel at the end of blocks.0"),
    (a_stream_through_a_tanh, r"on the residual stream, from value_\d+ to value_\d+ changed \(Tanh\)"),
    (two_heads_behind_each_other, "2 matrices stand between the last block and the logits"),
    (something_after_the_logits, "after the unembedding is neither a scale nor a cap"),
    (eps_outside_of_the_last_root, "ends of the residual stream cannot be read: what looks like a norm is none"),
    (positions_that_follow_from_no_table, "positions add is no part of a table|embed"),
]


@pytest.mark.parametrize(("change", "why"), REFUSED, ids=[each[0].__name__ for each in REFUSED])
def test_a_stream_that_no_spec_has_words_for_is_refused_with_the_place(change, why, source, plainly, tmp_path):
    path = write(source, tmp_path, change=lambda graph: change(Hand(graph)))
    assert np.abs(computed(path) - plainly).max() > 1e-7, "the change changes nothing"
    with pytest.raises(UnsupportedModelError, match=why):
        open_graph(path)


CARRIED = [
    (a_stream_that_is_half_of_itself, {"blocks.0.carry_mid": Carry("", 0.5)}, []),
    (a_norm_on_the_stream, {"blocks.0.carry_post": Carry("ln3.out")}, ["blocks.0.mlp"]),
    (two_norms_on_the_stream, {"blocks.1.carry_mid": Carry("ln3.out")}, ["blocks.1.attn"]),
]
"""The change, what of the stream goes on, and the branch with two norms behind each other, for which there are no words."""


@pytest.mark.parametrize(("change", "carried", "unread"), CARRIED, ids=[each[0].__name__ for each in CARRIED])
def test_what_becomes_of_the_stream_beside_a_branch_is_read(change, carried, unread, source, plainly, tmp_path):
    path = write(source, tmp_path, change=lambda graph: change(Hand(graph)))
    assert np.abs(computed(path) - plainly).max() > 1e-7, "the change changes nothing"
    with open_graph(path) as model:
        assert opaque(model.spec) == unread
        found = {
            f"blocks.{layer}.{name}": getattr(block, name)
            for layer, block in enumerate(model.spec.blocks)
            for name in ("carry_pre", "carry_mid", "carry_post")
        }
        assert {name: carry for name, carry in found.items() if carry != Carry()} == carried
        assert not [each.site for each in model.verify(list(TOKENS)) if each.status == "violated"]


def test_the_norm_of_a_branch_that_could_not_be_read_leaves_its_number_free(source, tmp_path):
    path = write(source, tmp_path, change=lambda graph: eps_outside_of_the_root(Hand(graph)))
    with open_graph(path) as model:
        first, second = model.spec.blocks
        assert [(norm.name, norm.reads) for norm in first.norms] == [("ln2", "resid_mid")]
        assert [norm.name for norm in second.norms] == ["ln1", "ln2"]


def test_the_norm_of_an_opaque_branch_is_read(source, tmp_path):
    path = write(source, tmp_path, change=lambda graph: no_mask(Hand(graph)))
    with open_graph(path) as model:
        block = model.spec.blocks[0]
        assert block.branch("attn") == Branch("attn", "ln1.out", Mixer("unread"))
        assert block.norms == source.spec.blocks[0].norms
        np.testing.assert_array_equal(model.weights["blocks.0.ln1.w"], source.weights["blocks.0.ln1.w"])
