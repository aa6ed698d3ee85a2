"""What stands between the mixture and the last matrix: gates and norms, and norms of values."""

from __future__ import annotations

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytest.importorskip("llmtrace_onnxruntime")

import numpy as np
from onnx import helper, numpy_helper

from llmtrace.spec import Gate, Mixer, Norm
from tests.backends.onnxruntime.reading.opened import altered, differing, opened, violated
from tests.backends.onnxruntime.test_writing_features import FEATURES, attending
from tests.backends.onnxruntime.written import TOKENS

STYLES = ("fused", "multihead", "onnx23")
"""Those in which one operator makes z."""
GATED = {
    **{name: FEATURES[name] for name in FEATURES if name.startswith(("a norm of z", "a gate"))},
    "a gate for each head after a norm of the whole width": attending(
        gate=Gate("sigmoid", per_head=True), z_norm=Norm(1e-5, over="head d_value")
    ),
    "a gate without activation": attending(gate=Gate("identity")),
    "a gate of many operators": attending(gate=Gate("gelu_tanh")),
    "a gate of narrow values": attending(gate=Gate(), d_value=8),
    "a norm of v": FEATURES["a norm of v"],
}


IN_EVERY_STYLE = ("a norm of z", "a gate for each channel", "a gate for each head", "a norm of v")


@pytest.mark.parametrize(
    ("feature", "style"),
    [(feature, "plain") for feature in GATED] + [(feature, style) for feature in IN_EVERY_STYLE for style in STYLES],
)
def test_a_gate_and_a_norm_are_what_they_were_written_from(feature, style, tmp_path):
    spec = GATED[feature]
    wanted = spec.blocks[0].branches[0].module
    one = opened(spec, tmp_path, style)
    found = one.module["attn"]
    assert (found.gate, found.z_norm, found.v_norm) == (wanted.gate, wanted.z_norm, wanted.v_norm)
    assert not altered(one)
    assert not differing(one)
    assert not violated(one.model)


@pytest.mark.parametrize("per_head", [False, True])
def test_z_its_gate_and_their_product_are_three_signals(per_head, tmp_path):
    one = opened(attending(gate=Gate(per_head=per_head)), tmp_path)
    trace = one.model.trace(list(TOKENS))
    z, gate, product = (trace[f"blocks.1.attn.{site}"] for site in ("z", "gate", "z_post"))
    assert {each.provenance.kind for each in (z, gate, product)} <= {"captured", "converted"}
    assert gate.array.shape == (len(TOKENS), 4, 1 if per_head else 16)
    np.testing.assert_allclose(z.array * gate.array, product.array, rtol=1e-5)
    assert np.abs(z.array - product.array).max() > 0.1


def _squared(graph):
    """The square of what a gate's sigmoid makes: no activation that is known."""
    for place, node in reversed(list(enumerate(graph.node))):
        if node.op_type == "Sigmoid" and _gates(graph, node):
            made, node.output[0] = node.output[0], f"sigmoid {place}"
            graph.node.insert(place + 1, helper.make_node("Mul", [f"sigmoid {place}", f"sigmoid {place}"], [made]))


def _biased(graph):
    """What enters the sigmoid has a bias."""
    for place, node in reversed(list(enumerate(graph.node))):
        if node.op_type == "Sigmoid" and _gates(graph, node):
            bias = f"bias {place}"
            graph.initializer.append(numpy_helper.from_array(np.linspace(-1, 1, 64).astype(np.float32), bias))
            entering, node.input[0] = node.input[0], f"biased {place}"
            graph.node.insert(place, helper.make_node("Add", [entering, bias], [f"biased {place}"]))


def _gates(graph, node):
    """Whether a sigmoid is no part of a SiLU, which multiplies what it reads itself."""
    return not any(
        each.op_type == "Mul" and node.input[0] in each.input for each in graph.node if node.output[0] in each.input
    )


def _of_the_embedding(graph):
    """The first gate's matrix reads what the norm reads."""
    entering = next(node.input[0] for node in graph.node if node.op_type == "Sigmoid" and _gates(graph, node))
    embedding = next(node.output[0] for node in graph.node if node.op_type == "Gather")
    next(node for node in graph.node if node.output[0] == entering).input[0] = embedding


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_squared, "the activation of its gate is none that is known"),
        (_biased, "the matrix of its gate has a bias"),
    ],
)
def test_a_gate_of_another_kind_is_opaque_and_says_why(change, why, tmp_path):
    one = opened(attending(gate=Gate()), tmp_path, change=change)
    assert isinstance(one.module["attn"], Mixer)
    assert any(why in note for note in one.model.info.notes)
    assert not violated(one.model)


def test_a_gate_that_is_made_of_something_else_leaves_what_it_makes_of_the_mixture_opaque(tmp_path):
    one = opened(attending(gate=Gate()), tmp_path, change=_of_the_embedding)
    assert not one.module["attn"].mixed
    assert any("attn.z_post is captured" in note and "made of something else" in note for note in one.model.info.notes)
    assert not violated(one.model)


def test_a_norm_of_values_with_weights_is_opaque(tmp_path):
    def weighed(graph):
        for node in graph.node:
            if node.op_type == "SimplifiedLayerNormalization":
                for each in graph.initializer:
                    if each.name == node.input[1] and (array := numpy_helper.to_array(each)).size == 16:
                        each.CopyFrom(numpy_helper.from_array(array * 2, each.name))

    one = opened(FEATURES["a norm of v"], tmp_path, "multihead", weighed)
    assert isinstance(one.module["attn"], Mixer)
    assert any("the norm of its values has weights" in note for note in one.model.info.notes)
