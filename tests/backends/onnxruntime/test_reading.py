"""What is read of a graph is what the graph was written from: every feature of every record, every family, in every style."""

from __future__ import annotations

import pytest
from attrs import evolve

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytest.importorskip("llmtrace_onnxruntime")

from llmtrace.errors import UnsupportedModelError
from llmtrace.families import spec_of
from llmtrace.spec import Attention, Llama3, LongRope, Moe, Norm, Yarn
from llmtrace.testing.tiny import TINY
from llmtrace_onnxruntime.writing import STYLES
from tests.backends.onnxruntime.opening import differences, opaque, open_graph, unequal, write
from tests.backends.onnxruntime.test_writing_features import CANNOT, FEATURES
from tests.backends.onnxruntime.written import TOKENS, drawn, expected, off

ROUNDING = 1e-6
"""Of the largest logit: how exactly frequencies are measured that no formula is claimed for."""
QUICK = {
    "plain": (
        "a large eps", "some channels, interleaved", "dynamic, beyond", "longrope, beyond", "yarn with a gain", "a window and a soft cap",
        "sinks and a window", "layer norms of q and k with bias", "norms for each head after rotary", "a gate after a norm",
        "clipped", "a bias of q alone", "narrow values", "clamped without offset", "in parallel behind two", "an mlp alone",
        "norms after and none before", "a scale of the stream", "a factor of what goes on of the stream",
        "a factor of each channel of the stream", "a factor of each channel of branches", "a stream that goes through norms",
        "fewer logits than tokens", "a head before the unembedding", "a head without a norm", "a norm of the embedding", "learned positions from two",
        "all of the head", "tied with a bias",
    ),
    "fused": ("a scale", "slopes and a window", "dynamic, within", "sandwiched by layer norms"),
    "multihead": ("norms of q and k with weights for each head", "slopes"),
    "onnx23": ("a window and a soft cap", "plain gelu_tanh"),
}  # fmt: skip
"""By style: all that is read differently."""


def described(spec, found):
    """A spec as a graph can tell it: ones that it multiplies by are a weight, angles are what they are, whatever formula gave them."""

    def norm(one, other):
        return evolve(one, weight=True) if isinstance(one, Norm) and isinstance(other, Norm) and other.weight else one

    blocks = []
    for block, other in zip(spec.blocks, found.blocks, strict=True):
        norms = tuple(
            evolve(one, norm=norm(one.norm, its.norm)) for one, its in zip(block.norms, other.norms, strict=True)
        )
        branches = [_branch(branch, its) for branch, its in zip(block.branches, other.branches, strict=True)]
        blocks.append(evolve(block, norms=norms, branches=tuple(branches)))
    return evolve(spec, blocks=tuple(blocks), ln_final=norm(spec.ln_final, found.ln_final))


def _branch(branch, its):
    module, found = branch.module, its.module
    if isinstance(module, Attention) and isinstance(found, Attention) and module.rotary and found.rotary:
        formula = isinstance(module.rotary.scaling, Yarn | Llama3 | LongRope)
        if formula and isinstance(found.rotary.scaling, LongRope) and found.rotary.width == module.rotary.width:
            module = evolve(module, rotary=found.rotary)
    if isinstance(module, Moe) and module.scoring == "topk_softmax" and found.scoring == "softmax":
        module = evolve(module, scoring="softmax", renormalise=True)  # the same numbers
    return evolve(branch, module=module)


def hold(source, path):
    """The file is read as what it was written from: records, weights to the last bit, and logits of prompts of several lengths."""
    with open_graph(path) as model:
        assert not opaque(model.spec), model.info.notes
        wanted = described(source.spec, model.spec)
        assert not list(differences(model.spec, wanted))
        found = dict(model.weights)
        ones = {name for name in found if name.endswith(".w") and name not in source.weights}
        assert all((found[name] == 1).all() for name in ones)
        assert not unequal({name: array for name, array in found.items() if name not in ones}, dict(source.weights))
        assert set(model.session.stored.values()) == {"float32"}
        if wanted != source.spec:
            for length in (1, 5, 7, len(TOKENS), 2 * len(TOKENS)):
                prompt = (TOKENS * 2)[:length]
                assert (
                    off(expected(model.spec, found, prompt), expected(source.spec, source.weights, prompt)) < ROUNDING
                )


@pytest.mark.parametrize(
    ("style", "feature"),
    [
        pytest.param(style, feature, marks=() if feature in QUICK[style] else pytest.mark.slow)
        for style in STYLES
        for feature in FEATURES
        if feature not in CANNOT.get(style, {}) and not feature.startswith("experts")
    ],
)
def test_every_feature_is_read_as_it_was_written(style, feature, tmp_path):
    source = drawn(FEATURES[feature])
    path = write(source, tmp_path, style)
    hold(source, path)


@pytest.mark.parametrize(
    "style", ["plain", *(pytest.param(style, marks=pytest.mark.slow) for style in ("multihead", "onnx23", "fused"))]
)
def test_a_window_that_is_wider_than_what_is_scored_is_seen_in_the_mask(style, tmp_path):
    """Of the second block; the first has none."""
    spec = FEATURES["a window"]
    first = FEATURES["nothing else"].blocks[0]
    attention, mlp = spec.blocks[0].branches
    second = evolve(spec.blocks[0], branches=(evolve(attention, module=evolve(attention.module, window=1500)), mlp))
    source = drawn(evolve(spec, context=4096, blocks=(first, second)))
    with open_graph(write(source, tmp_path, style)) as model:
        assert not list(differences(model.spec, source.spec))


@pytest.mark.slow
@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("style", STYLES)
def test_every_family_is_read_as_it_was_written(family, style, tmp_path):
    source = drawn(spec_of({"model_type": family, **TINY[family]}))
    try:
        path = write(source, tmp_path, style)
    except UnsupportedModelError as refusal:
        pytest.skip(str(refusal))
    hold(source, path)
