"""Every feature of every record, alone, in every style: ONNX Runtime's logits are those of the equations, or the operator is named that cannot
say it. And the feature is felt: without it, the logits would be others."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from llmtrace.errors import UnsupportedModelError
from llmtrace.schema.functions import ACTIVATIONS
from llmtrace.schema.steps import needed
from llmtrace.spec import (
    Attention,
    Block,
    Branch,
    Carry,
    Clamp,
    DynamicNtk,
    Embedding,
    Gate,
    GatedMlp,
    Head,
    Linear,
    Llama3,
    LongRope,
    Mixer,
    Mlp,
    ModelSpec,
    Moe,
    Norm,
    Positions,
    PreNorm,
    Rotary,
    Shared,
    Unembedding,
    Yarn,
)
from llmtrace_onnxruntime.writing import STYLES, write_onnx
from tests.backends.onnxruntime.written import TOKENS, computed, drawn, expected, off

ROUNDING = 1e-5
"""Of the largest logit: what float32 and these weights explain."""
FELT = 1e-3

RMS = Norm(1e-5)
LAYER = Norm(1e-5, centred=True, bias=True)
TURNED = Rotary(100.0, 16)
A = Attention(4, 2, 16, 16, 0.3, rotary=TURNED)
M = GatedMlp(64, "silu")
E = GatedMlp(32, "silu")
MOE = Moe(4, 2, E)
PER_HEAD = Norm(1e-5, over="d_head")


def wired(a=A, m=M, norm=RMS, post=None, multiplier=1.0, scale=1.0) -> Block:
    """Attention, then an MLP."""
    return Block(
        (PreNorm("ln1", "resid_pre", norm), PreNorm("ln2", "resid_mid", norm)),
        (
            Branch("attn", "ln1.out", a, post=post, multiplier=multiplier),
            Branch("mlp", "ln2.out", m, post=post, multiplier=multiplier),
        ),
        scale,
    )


def model(block: Block, final=RMS, **ends) -> ModelSpec:
    """Two such blocks."""
    return ModelSpec("any", 64, 40, 32, (block, block), final, **ends)


def attending(**changes) -> ModelSpec:
    return model(wired(evolve(A, **changes)))


def turning(scaling=None, **changes) -> ModelSpec:
    return attending(rotary=evolve(TURNED, scaling=scaling, **changes))


def routed(**changes) -> ModelSpec:
    return model(wired(m=evolve(MOE, **changes)))


def queries(over: str, **changes) -> dict:
    """Norms of q and k."""
    return {
        "q_norm": Norm(1e-5, over=over, **changes),
        "k_norm": Norm(1e-5, over=over.replace("head d", "kv_head d") if " " in over else over, **changes),
    }


BASE = model(wired())
PARALLEL = Block(
    (PreNorm("ln1", "resid_pre", RMS),), (Branch("attn", "ln1.out", A), Branch("mlp", "ln1.out", M))
)  # fmt: skip
FEATURES: dict[str, ModelSpec] = {
    "nothing else": BASE,
    "layer norms": model(wired(norm=LAYER), LAYER),
    "layer norms without bias": model(wired(norm=evolve(LAYER, bias=False)), evolve(LAYER, bias=False)),
    "layer norms without weights": model(wired(norm=Norm(1e-5, centred=True, weight=False)), LAYER),
    "rms norms without weights": model(wired(norm=Norm(1e-5, weight=False)), Norm(1e-5, weight=False)),
    "rms norms with bias": model(wired(norm=evolve(RMS, bias=True)), evolve(RMS, bias=True)),
    "a large eps": model(wired(norm=Norm(0.7)), Norm(0.7)),
    "as many kv heads": attending(kv_heads=4),
    "one kv head": attending(kv_heads=1),
    "no rotary": attending(rotary=None),
    "interleaved": turning(layout="interleaved"),
    "half of the channels": turning(width=8),
    "some channels, interleaved": turning(width=6, layout="interleaved"),
    "linear": turning(Linear(4.0)),
    "dynamic, beyond": turning(DynamicNtk(4.0, 6)),
    "dynamic, within": turning(DynamicNtk(4.0, 16)),
    "dynamic and interleaved": turning(DynamicNtk(4.0, 6), layout="interleaved", width=8),
    "yarn": turning(Yarn(4.0, 8)),
    "yarn with a gain": turning(Yarn(4.0, 8, truncate=False, gain=1.3)),
    "llama 3": turning(Llama3(8.0, 1.0, 4.0, 32)),
    "longrope, beyond": turning(LongRope((1.0,) * 8, (4.0,) * 8, 6, 1.2)),
    "longrope, within": turning(LongRope((2.0,) * 8, (4.0,) * 8, 16)),
    "a scale": attending(scale=0.11),
    "a soft cap of scores": attending(softcap=1.5),
    "a window": attending(window=5),
    "a window and a soft cap": attending(window=5, softcap=1.5),
    "slopes": attending(slopes=(0.5, 0.25, 0.125, 0.0625), rotary=None),
    "slopes and a window": attending(slopes=(0.5, 0.25, 0.125, 0.0625), window=5),
    "sinks": attending(sinks=True),
    "sinks and a window": attending(sinks=True, window=5),
    "norms of q and k": attending(**queries("d_head")),
    "norms of q and k of the whole width": attending(**queries("head d_head")),
    "layer norms of q and k with bias": attending(**queries("d_head", centred=True, bias=True)),
    "norms of q and k with weights for each head": attending(
        q_norm=Norm(1e-5, centred=True, over="d_head", each="head", bias=True),
        k_norm=Norm(1e-5, centred=True, over="d_head", each="kv_head", bias=True),
    ),
    "norms after rotary": attending(**queries("d_head"), norm_after_rotary=True),
    "norms of the whole width after rotary": attending(**queries("head d_head"), norm_after_rotary=True),
    "norms for each head after rotary": attending(
        q_norm=Norm(1e-5, over="d_head", each="head"), k_norm=Norm(1e-5, over="d_head", each="kv_head"), norm_after_rotary=True
    ),
    "a norm of v": attending(v_norm=Norm(1e-5, over="d_value", weight=False)),
    "a norm of z": attending(z_norm=Norm(1e-5, over="d_value")),
    "a norm of z of the whole width": attending(z_norm=Norm(1e-5, over="head d_value", bias=True)),
    "a gate for each channel": attending(gate=Gate()),
    "a gate for each head": attending(gate=Gate("silu", per_head=True)),
    "a gate after a norm": attending(gate=Gate("tanh"), z_norm=Norm(1e-5, over="d_value", each="head")),
    "clipped": attending(clip=0.6),
    "biases of q, k, v": attending(biases="QKV"),
    "biases of all": attending(biases="QKVO"),
    "a bias of q alone": attending(biases="Q"),
    "a bias of o alone": attending(biases="O"),
    "narrow heads": attending(d_head=12, d_value=12, rotary=Rotary(100.0, 12)),
    "narrow values": attending(d_value=8),
    **{f"plain {act}": model(wired(m=Mlp(64, act, bias=True))) for act in ACTIVATIONS},
    **{f"gated {act}": model(wired(m=GatedMlp(64, act))) for act in ACTIVATIONS},
    "a plain mlp without bias": model(wired(m=Mlp(64, "relu"))),
    "a gated mlp with bias": model(wired(m=evolve(M, bias=True))),
    "clamped": model(wired(m=evolve(M, clamp=Clamp(0.5)))),
    "clamped without offset": model(wired(m=evolve(M, clamp=Clamp(0.5, 0.0)))),
    "experts": routed(),
    "experts, renormalised": routed(renormalise=True),
    "experts, softmax of the chosen": routed(scoring="topk_softmax"),
    "experts by sigmoid": routed(scoring="sigmoid"),
    "experts by sigmoid, renormalised and scaled": routed(scoring="sigmoid", renormalise=True, scale=2.5),
    "experts, scaled": routed(scale=2.5),
    "experts with a bias of the router": routed(router_bias=True),
    "experts, corrected": routed(scoring="sigmoid", correction=True, renormalise=True),
    "experts, softmax corrected": routed(correction=True),
    "experts with biases": routed(expert=evolve(E, bias=True)),
    "experts, clamped": routed(expert=GatedMlp(32, "quick_gelu", bias=True, clamp=Clamp(0.5)), scoring="topk_softmax"),
    "experts of gelu": routed(expert=evolve(E, act="gelu")),
    "experts, one of them": routed(choices=1),
    "experts, all of them": routed(choices=4),
    "experts and a shared one": routed(shared=Shared(evolve(E, d_mlp=64))),
    "experts and a gated shared one": routed(shared=Shared(evolve(E, d_mlp=64), gated=True)),
    "experts and a plain shared one": routed(shared=Shared(Mlp(64, "relu2"))),
    "plain experts": routed(expert=Mlp(32, "relu2", bias=True)),
    "experts, sigmoid of the chosen, corrected": routed(scoring="topk_sigmoid", correction=True),
    "experts, a sum that is added to": routed(scoring="sigmoid", renormalise=True, eps=0.1),
    "experts whose inputs are weighed": routed(scoring="sigmoid", weighs="inputs"),
    "xielu": model(wired(m=Mlp(64, "xielu"))),
    "a norm inside the mlp": model(wired(m=evolve(M, inner_norm=Norm(1e-5, over="d_mlp")))),
    "in parallel behind one norm": model(PARALLEL),
    "in parallel behind two": model(
        Block(
            (PreNorm("ln1", "resid_pre", RMS), PreNorm("ln2", "resid_pre", LAYER)),
            (Branch("attn", "ln1.out", A), Branch("mlp", "ln2.out", M)),
        )
    ),
    "attention alone": model(Block((PreNorm("ln1", "resid_pre", RMS),), (Branch("attn", "ln1.out", A),))),
    "an mlp alone": model(Block((PreNorm("ln1", "resid_pre", RMS),), (Branch("mlp", "ln1.out", M),))),
    "norms after and none before": model(
        Block((), (Branch("attn", "resid_pre", A, post=RMS), Branch("mlp", "resid_mid", M, post=RMS)))
    ),
    "sandwiched": model(wired(post=RMS)),
    "sandwiched by layer norms": model(wired(post=LAYER)),
    "a multiplier of branches": model(wired(multiplier=0.4)),
    "a scale of the stream": model(wired(scale=0.7)),
    "a factor of what goes on of the stream": model(evolve(wired(), carry_mid=Carry("", 0.7), carry_post=Carry("", 1.3))),
    "a factor of each channel of the stream": model(
        evolve(wired(), carry_mid=Carry("", weight=True), carry_post=Carry("", weight=True, bias=True))
    ),
    "a factor of each channel of branches": model(
        evolve(wired(), branches=tuple(evolve(branch, weight=True) for branch in wired().branches))
    ),
    "a stream that goes through norms": model(evolve(wired(), carry_mid=Carry("ln1.out", 0.8), carry_post=Carry("ln2.out"))),
    "fewer logits than tokens": model(wired(), unembed=Unembedding(vocab=30)),
    "a scale of the embedding": model(wired(), embed=Embedding(0.3)),
    "a norm of the embedding": model(wired(), embed=Embedding(0.3, LAYER)),
    "learned positions": model(wired(), positions=Positions(32)),
    "learned positions from two": model(wired(), positions=Positions(34, 2)),
    "learned positions and parallel": model(PARALLEL, positions=Positions(32)),
    "a scale of the logits": model(wired(), unembed=Unembedding(scale=0.3)),
    "a soft cap of logits": model(wired(), unembed=Unembedding(softcap=2.0)),
    "all of the head": model(wired(), unembed=Unembedding(0.3, 2.0, bias=True)),
    "a head before the unembedding": model(wired(), head=Head("gelu", True, LAYER)),
    "a head without a norm": model(wired(), head=Head("silu")),
    "tied": model(wired(), unembed=Unembedding(tied=True)),
    "tied with a bias": model(wired(), unembed=Unembedding(tied=True, bias=True)),
}  # fmt: skip
"""By name: each adds something to the first."""
ALIKE = ("nothing else", "gated silu", "dynamic, within", "tied")
"""Those that are the first in other words, or with one weight twice."""
CANNOT: dict[str, dict[str, str]] = {
    "fused": {
        "narrow heads": "GroupQueryAttention cannot say heads of 12 channels",
        "narrow values": "GroupQueryAttention cannot say values of 8 channels",
        "experts by sigmoid": "MoE cannot say scores by a sigmoid",
        "experts by sigmoid, renormalised and scaled": "MoE cannot say scores by a sigmoid",
        "experts, corrected": "MoE cannot say",
        "experts, softmax corrected": "MoE cannot say a correction",
        "experts of gelu": "MoE cannot say experts of gelu",
        "plain experts": "MoE cannot say experts that are not gated",
        "experts, sigmoid of the chosen, corrected": "MoE cannot say scores by a sigmoid",
        "experts, a sum that is added to": "MoE cannot say scores by a sigmoid",
        "experts whose inputs are weighed": "MoE cannot say scores by a sigmoid",
    },
    "multihead": {
        "sinks": "MultiHeadAttention cannot say sinks",
        "sinks and a window": "MultiHeadAttention cannot say sinks",
        "a soft cap of scores": "MultiHeadAttention cannot say a soft cap",
        "a window and a soft cap": "MultiHeadAttention cannot say a soft cap",
    },
    "onnx23": {"sinks": "Attention cannot say sinks", "sinks and a window": "Attention cannot say sinks"},
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("feature", FEATURES)
def test_the_graph_computes_what_the_equations_say(feature, style, tmp_path):
    one, path = drawn(FEATURES[feature]), tmp_path / "model.onnx"
    if words := CANNOT.get(style, {}).get(feature):
        with pytest.raises(UnsupportedModelError, match=words):
            write_onnx(one, path, style=style)
        assert not list(tmp_path.iterdir())
        return
    found = computed(write_onnx(one, path, style=style))
    assert found.dtype == np.float32
    assert off(found, expected(one.spec, one.weights)) < ROUNDING


@pytest.mark.parametrize("feature", [name for name in FEATURES if name not in ALIKE])
def test_a_feature_changes_the_logits_or_brings_weights(feature):
    """So that a graph without it is told from one with it."""
    spec = FEATURES[feature]
    rows, base = ({weight.name: weight.shape for weight, _ in needed(each)} for each in (spec, BASE))
    if rows == base:
        one = drawn(spec)
        assert off(expected(BASE, one.weights), expected(spec, one.weights)) > FELT


@pytest.mark.parametrize(
    ("within", "beyond"), [("longrope, within", "longrope, beyond"), ("dynamic, within", "dynamic, beyond")]
)
@pytest.mark.parametrize("style", STYLES)
def test_frequencies_follow_the_length_of_each_prompt(within, beyond, style, tmp_path):
    """One file, prompts on both sides of the trained context."""
    for feature in (within, beyond):
        one = drawn(FEATURES[feature])
        path = write_onnx(one, tmp_path / "model.onnx", style=style)
        for length in (1, 5, 6, 7, len(TOKENS)):
            assert off(computed(path, TOKENS[:length]), expected(one.spec, one.weights, TOKENS[:length])) < ROUNDING


@pytest.mark.parametrize("style", STYLES)
def test_a_mixer_is_refused_by_name(style, tmp_path):
    block = Block((PreNorm("ln1", "resid_pre", RMS),), (Branch("mixer", "ln1.out", Mixer("mamba2")),))
    with pytest.raises(UnsupportedModelError, match="mamba2"):
        write_onnx(drawn(model(block)), tmp_path / "model.onnx", style=style)
    assert not list(tmp_path.iterdir())
