"""Mixtures of experts: what is read of a graph is what it was written from, and what PyTorch computes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytest.importorskip("llmtrace_onnxruntime")

import onnx
from onnx import helper, numpy_helper

import llmtrace
from llmtrace.errors import EditNotSupportedError
from llmtrace.spec import Clamp, GatedMlp, Mixer, Moe, Shared
from tests.backends.onnxruntime.reading.opened import (
    ROUNDING,
    altered,
    differing,
    error,
    exported,
    open_graph,
    opened,
    unlike,
    violated,
)
from tests.backends.onnxruntime.test_writing_features import FEATURES, E, routed
from tests.backends.onnxruntime.written import TOKENS

EXPERTS = [name for name in FEATURES if name.startswith("experts")]
SITES = {"router", "expert_index", "router_weights", "pre", "pre_linear", "post", "out"}
BY_OPERATOR = {
    "experts": ("softmax", False),
    "experts, renormalised": ("softmax", True),
    "experts, softmax of the chosen": ("softmax", True),
    "experts with a bias of the router": ("softmax", False),
    "experts with biases": ("softmax", False),
    "experts, clamped": ("softmax", True),
    "experts, all of them": ("softmax", False),
    "experts and a shared one": ("softmax", False),
    "experts and a gated shared one": ("softmax", False),
}
"""What `MoE` says of the scoring: a softmax over the chosen is one over all, made to sum to one."""


@pytest.mark.parametrize("feature", EXPERTS)
def test_a_dense_mixture_is_what_it_was_written_from(feature, tmp_path):
    one = opened(FEATURES[feature], tmp_path)
    assert one.module["mlp"] == FEATURES[feature].blocks[0].branches[1].module
    assert {f"blocks.0.mlp.{site}" for site in SITES} <= set(one.model.trace(list(TOKENS)).signals)
    assert not altered(one)
    assert not differing(one)
    assert not violated(one.model)


@pytest.mark.parametrize("feature", BY_OPERATOR)
def test_what_an_operator_keeps_to_itself_is_derived_rightly(feature, tmp_path):
    one = opened(FEATURES[feature], tmp_path, "fused")
    found, wanted = one.module["mlp"], FEATURES[feature].blocks[0].branches[1].module
    assert isinstance(found, Moe)
    assert (found.scoring, found.renormalise) == BY_OPERATOR[feature]
    assert (found.expert, found.choices, found.shared) == (wanted.expert, wanted.choices, wanted.shared)
    assert not [name for name in altered(one) if ".mlp." in name]
    trace = one.model.trace(list(TOKENS))
    assert all(trace[f"blocks.0.mlp.{site}"].provenance.kind == "derived" for site in SITES - {"router", "out"})
    assert not {site for site in differing(one, derived=True) if ".mlp." in site}


def test_a_scale_after_an_operator_is_the_branch_s(tmp_path):
    """Nothing in the graph tells a factor of the weights from one of their sum, but where a shared expert is added between."""
    one = opened(FEATURES["experts, scaled"], tmp_path, "fused")
    assert (one.module["mlp"].scale, one.model.spec.blocks[0].branches[1].multiplier) == (1.0, 2.5)
    off = differing(one)
    assert set(off) == {"blocks.0.mlp.out", "blocks.1.mlp.out"}
    shared = opened(routed(scale=2.5, shared=Shared(E)), tmp_path, "fused")
    assert (shared.module["mlp"].scale, shared.model.spec.blocks[0].branches[1].multiplier) == (2.5, 1.0)
    assert not differing(shared)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [0, 16])
def test_packed_experts_are_unpacked(bits, block, tmp_path):
    held = {}

    def pack(graph):
        held.update(_packed(graph, bits, block))

    one = opened(FEATURES["experts with biases"], tmp_path, "fused", pack)
    assert isinstance(one.module["mlp"], Moe)
    found = one.model.weights["blocks.1.mlp.W_out"]
    assert error(found, one.source.weights["blocks.1.mlp.W_out"]) < (0.2 if bits == 4 else 0.02)
    assert any(np.array_equal(found, array.swapaxes(1, 2)) for array in held.values())
    assert not violated(one.model)


def _packed(graph, bits, block):
    """Every `MoE` as a `QMoE` of whole numbers; returns what they stand for."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    held = {}
    for node in graph.node:
        if node.op_type != "MoE":
            continue
        reads = [*node.input, *[""] * (8 - len(node.input))]
        new = reads[:2]
        for matrix, bias in ((reads[2], reads[3]), (reads[4], reads[5])):
            array, half = numpy_helper.to_array(weights[matrix]), 1 << (bits - 1)
            rows = array.reshape(*array.shape[:2], -1, block or array.shape[2])
            scales = (np.abs(rows).max(-1) / (half - 1)).astype(np.float32)
            levels = np.rint(rows / scales[..., None])
            held[matrix] = (levels.astype(np.float32) * scales[..., None]).reshape(array.shape)
            whole = (levels + half).astype(np.uint8).reshape(array.shape)
            bytes_ = whole[..., ::2] | whole[..., 1::2] << 4 if bits == 4 else whole
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(bytes_), f"{matrix} levels"))
            graph.initializer.append(
                numpy_helper.from_array(scales if block else np.ascontiguousarray(scales[..., 0]), f"{matrix} scales")
            )
            new += [f"{matrix} levels", f"{matrix} scales", bias]
        del node.input[:]
        node.input.extend(new)
        node.op_type = "QMoE"
        node.attribute.append(helper.make_attribute("expert_weight_bits", bits))
        if block:
            node.attribute.append(helper.make_attribute("block_size", block))
    return held


def attribute(op, name, value):
    """A graph in which an operator's attribute is another."""

    def change(graph):
        for node in graph.node:
            if node.op_type == op:
                kept = [each for each in node.attribute if each.name != name]
                del node.attribute[:]
                node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


def test_a_choice_without_an_order_is_put_in_order(tmp_path):
    one = opened(FEATURES["experts by sigmoid"], tmp_path, change=attribute("TopK", "sorted", 0))
    assert isinstance(one.module["mlp"], Moe)
    assert not differing(one)


def _weights_of_x(graph):
    """The weights of experts are shifted by the first channel of what they read."""
    rows = next(node.input[0] for node in graph.node if node.op_type == "MatMul" and node.output[0] == _logits(graph))
    spread = next(node for node in graph.node if node.op_type == "ScatterElements")
    graph.initializer.append(numpy_helper.from_array(np.array([0]), "first"))
    at = list(graph.node).index(spread)
    graph.node.insert(at, helper.make_node("Gather", [rows, "first"], ["channel"], axis=-1))
    graph.node.insert(at + 1, helper.make_node("Add", [spread.input[2], "channel"], ["shifted"]))
    spread.input[2] = "shifted"


def _bent(graph):
    """What each expert makes goes through a tanh before it is weighted."""
    for place, node in reversed(list(enumerate(graph.node))):
        if node.op_type == "Mul" and any(_feeds(graph, node, "ReduceSum")):
            made, node.input[0] = node.input[0], f"bent {place}"
            graph.node.insert(place, helper.make_node("Tanh", [made], [f"bent {place}"]))


def _logits(graph):
    softmax = next(node for node in graph.node if node.op_type == "Softmax" and any(_feeds(graph, node, "TopK")))
    return softmax.input[0]


def _feeds(graph, node, op):
    return (each.op_type == op for each in graph.node if node.output[0] in each.input)


@pytest.mark.parametrize(
    ("change", "style", "why"),
    [
        (attribute("TopK", "largest", 0), "plain", "not those that it ranks highest"),
        (_bent, "plain", "no product with the matrices of its experts is multiplied by their weights"),
        (_weights_of_x, "plain", "rest on more than the router's logits"),
        (attribute("MoE", "activation_alpha", 1.2), "fused", "with alpha 1.2"),
        (attribute("MoE", "activation_beta", 0.5), "fused", "0.5 is added to the linear half"),
    ],
)
def test_a_mixture_of_another_kind_is_opaque_and_says_why(change, style, why, tmp_path):
    one = opened(FEATURES["experts"], tmp_path, style, change)
    assert isinstance(one.module["mlp"], Mixer)
    assert any(why in note for note in one.model.info.notes)
    assert not violated(one.model)


FAMILIES = {"mixtral": 1, "qwen2_moe": 1, "glm4_moe": 2}
"""Layers of each: GLM's first is dense."""


UNORDERED = ("router_weights", "pre", "pre_linear", "post")
"""Sites that are put in order when they are handed out, where TopK does not say which comes first."""


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    """Torch's export of a tiny checkpoint, and the checkpoint, both open."""
    pytest.importorskip("llmtrace_torch")
    checkpoint, path = exported(
        request.param, tmp_path_factory.mktemp(request.param), num_hidden_layers=FAMILIES[request.param]
    )
    return path, open_graph(path), llmtrace.open(str(checkpoint), backend="torch")


def test_what_torch_exports_is_what_torch_computes(pair):
    _, ours, theirs = pair
    assert ours.spec.blocks[-1].branches[1] == theirs.spec.blocks[-1].branches[1]
    assert not unlike(ours.trace(list(TOKENS)), theirs.trace(list(TOKENS)))
    assert all(np.array_equal(ours.weights[name], array) for name, array in theirs.weights.items())


def test_torch_s_newer_exporter_s_spelling_is_the_same(pair, tmp_path):
    """It looks matrices up by GatherND, by indices of a last axis."""
    path, _, theirs = pair
    proto = onnx.load(path)
    nodes, tables = list(proto.graph.node), {each.name for each in proto.graph.initializer if len(each.dims) == 3}
    proto.graph.initializer.append(numpy_helper.from_array(np.array([-1]), "last axis"))
    del proto.graph.node[:]
    for place, node in enumerate(nodes):
        if node.op_type == "Gather" and node.input[0] in tables:
            looked = f"looked up {place}"
            proto.graph.node.append(helper.make_node("Unsqueeze", [node.input[1], "last axis"], [looked]))
            proto.graph.node.append(helper.make_node("GatherND", [node.input[0], looked], list(node.output)))
        else:
            proto.graph.node.append(node)
    assert sum(node.op_type == "GatherND" for node in proto.graph.node) == 2
    onnx.save(proto, tmp_path / "model.onnx")
    assert not unlike(open_graph(tmp_path / "model.onnx").trace(list(TOKENS)), theirs.trace(list(TOKENS)))


@pytest.mark.parametrize("site", ["router", "router_weights", "pre", "pre_linear", "post", "out", "shared_out"])
def test_an_edit_of_experts_is_felt_as_in_the_equations(pair, site):
    path, ours, theirs = pair
    moe = theirs.spec.blocks[-1].branches[1].module
    if (site == "shared_out" and moe.shared is None) or (moe.correction and site in UNORDERED):
        pytest.skip("the model has no such site, or TopK leaves the order of experts open")
    edit = [llmtrace.ablate(f"blocks.{len(ours.spec.blocks) - 1}.mlp.{site}")]
    reference = llmtrace.open(str(path.parent.parent / "checkpoint"), backend="reference")
    found, wanted, before = (
        model.trace(list(TOKENS), capture=["logits"], edits=edits)["logits"].array
        for model, edits in ((ours, edit), (reference, edit), (ours, []))
    )
    assert error(found, wanted) < ROUNDING
    assert error(found, before) > 1e-3


@pytest.mark.parametrize("site", ["pre", "post", "expert_index"])
def test_what_is_put_together_of_several_values_cannot_be_edited(site, tmp_path):
    """Of a dense mixture, the rows of those experts that were chosen are picked from all."""
    one = opened(FEATURES["experts"], tmp_path)
    with pytest.raises(EditNotSupportedError, match=site):
        one.model.trace(list(TOKENS), edits=[llmtrace.ablate(f"blocks.0.mlp.{site}")])


def test_all_that_experts_may_have_is_found_at_once(tmp_path):
    """A clamp, biases and a scale at once."""
    expert = GatedMlp(32, "quick_gelu", bias=True, clamp=Clamp(0.5))
    spec = routed(
        expert=expert, scoring="sigmoid", renormalise=True, scale=1.5, correction=True, shared=Shared(E, True)
    )
    one = opened(spec, tmp_path)
    assert one.module["mlp"] == spec.blocks[0].branches[1].module
    assert not altered(one)
    assert not differing(one)


@pytest.mark.parametrize("feature", ["experts", "experts, corrected", "sinks", "a gate for each head"])
def test_half_precision_is_read_as_well(feature, tmp_path):
    """Scores and logits are widened before a softmax, and are no finer for it."""
    one = opened(FEATURES[feature], tmp_path, kind="float16")
    assert set(one.module) == {"attn", "mlp"}
    assert not violated(one.model)
