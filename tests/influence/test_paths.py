"""Paths through one attention against loops that are written out, for the features that few models have."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from llmtrace.errors import CapabilityError, UnsupportedModelError
from llmtrace.influence import influence
from llmtrace.influence.paths import path_sites, paths
from llmtrace.schema.evaluate import Equations
from llmtrace.spec import Attention, Block, Branch, Gate, Mlp, ModelSpec, Norm, PreNorm

PLAIN = Attention(4, 2, 3, 5, 0.6)
TOKENS = [1, 2, 3, 2, 7]
VARIANTS = {
    "plain": PLAIN,
    "with biases": attrs.evolve(PLAIN, biases="VO"),
    "gated by channel": attrs.evolve(PLAIN, gate=Gate()),
    "gated by head": attrs.evolve(PLAIN, gate=Gate("silu", per_head=True), biases="O"),
    "sinks taken off z, gated": attrs.evolve(PLAIN, sinks=True, sinks_after=True, gate=Gate()),
    "z normed per head": attrs.evolve(PLAIN, z_norm=Norm(1e-5, over="d_value")),
    "z normed per head, by a weight of each head": attrs.evolve(PLAIN, z_norm=Norm(1e-5, over="d_value", each="head")),
    "z normed over all heads": attrs.evolve(PLAIN, z_norm=Norm(1e-5, over="head d_value", bias=True)),
    "z centred per head, with a bias, gated": attrs.evolve(
        PLAIN, z_norm=Norm(1e-5, True, "d_value", bias=True), gate=Gate()
    ),
    "z centred per head, gated by head": attrs.evolve(
        PLAIN, z_norm=Norm(1e-5, True, "d_value", bias=True), gate=Gate(per_head=True)
    ),
}
POSTS = {"no post-norm": None, "RMS post-norm": Norm(1e-5), "layer post-norm": Norm(1e-5, centred=True, bias=True)}


def spec(attention, post=None, multiplier=0.5):
    block = Block(
        (PreNorm("ln1", "resid_pre", Norm(1e-5)), PreNorm("ln2", "resid_mid", Norm(1e-5))),
        (Branch("attn", "ln1.out", attention, post, multiplier), Branch("mlp", "ln2.out", Mlp(6, "relu"))),
    )
    return ModelSpec("by hand", 8, 11, None, (block, block), Norm(1e-5))


def normed(x, n, w, b, axes):
    """A norm of `x` over its last axes, and the same as a function of a part of `x`: linear, at the denominator of `x`."""
    centre = (lambda y: y - y.mean(axes, keepdims=True)) if n.centred else (lambda y: y)
    sigma = np.sqrt((centre(x) ** 2).mean(axes, keepdims=True) + n.eps)
    return lambda part: centre(part) / sigma * (1 if w is None else w), (0 if b is None else b)


def sent(model, trace, layer):
    """What source j sends through head h to query i, [head query key d_model], and what biases add: one source and head at a time."""
    block, weights = model.spec.blocks[layer], model.weights
    a, at = block.attention, f"blocks.{layer}.attn."
    pattern, v, z = (trace[at + name].array for name in ("pattern", "v", "z"))
    gate = trace[at + "gate"].array if a.gate else np.ones((len(z), a.heads, 1))
    if a.sinks_after:
        gate = gate * trace[at + "kept"].array.T[..., None]
    inner, shift = (lambda part: part), np.zeros((a.heads, a.d_value))
    if a.z_norm:
        axes = (-2, -1) if "head" in a.z_norm.over.split() else (-1,)
        inner, bias = normed(z, a.z_norm, weights.get(at + "z_norm.w"), weights.get(at + "z_norm.b"), axes)
        shift = shift + bias
    outer, last = (lambda part: part), 0.0
    branch = block.branches[0]
    if branch.post:
        name = f"blocks.{layer}.attn_post."
        outer, last = normed(
            trace[at + "out"].array, branch.post, weights.get(name + "w"), weights.get(name + "b"), (-1,)
        )

    def project(u):
        return np.einsum("thd,hdm->tm", u, weights[at + "W_O"])

    found = np.zeros((a.heads, len(z), len(z), model.spec.d_model))
    for head in range(a.heads):
        for source in range(len(z)):
            part = np.zeros_like(z)
            part[:, head] = pattern[head, :, source, None] * v[source, head // 2]
            found[head, :, source] = branch.multiplier * outer(project(inner(part) * gate))
    fixed = project(np.broadcast_to(shift, z.shape) * gate) + (weights[at + "b_O"] if "O" in a.biases else 0)
    return found, branch.multiplier * (outer(fixed) + last)


@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_paths_are_what_one_source_and_head_at_a_time_give(variant, post, built):
    model = built(spec(VARIANTS[variant], POSTS[post]))
    trace = model.trace(TOKENS)
    expected, fixed = sent(model, trace, 1)
    assert np.allclose(expected.sum((0, 2)) + fixed, trace["blocks.1.attn_out"].array)  # the loops are right themselves
    through = paths(model.equations, 1, {site: trace[site].array for site in path_sites(model.spec, 1)})
    assert np.allclose(through.constant, fixed)
    direction = np.random.default_rng(1).normal(size=(5, 8))
    assert np.allclose(through.towards(direction), np.einsum("hqkm,qm->hqk", expected, direction))
    assert np.allclose(
        through.at(3).towards(direction[[3]])[:, 0], np.einsum("hkm,m->hk", expected[:, 3], direction[3])
    )


@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_both_methods_that_follow_paths_keep_their_laws(variant, post, built):
    alti, dla = influence(built(spec(VARIANTS[variant], POSTS[post])), TOKENS, ("alti", "dla"), target=3)
    assert alti.completeness_gap < 1e-12
    assert dla.completeness_gap < 1e-12
    assert alti.matrix.sum(-1) == pytest.approx(np.ones(5))


def test_alti_of_one_gated_layer_is_the_formula_on_those_vectors(built):
    model = built(attrs.evolve(spec(VARIANTS["z centred per head, with a bias, gated"]), blocks=spec(PLAIN).blocks[:1]))
    model = built(attrs.evolve(model.spec, blocks=spec(VARIANTS["z centred per head, with a bias, gated"]).blocks[:1]))
    trace = model.trace(TOKENS)
    vectors = sent(model, trace, 0)[0].sum(0)
    own = np.arange(5)
    vectors[own, own] += trace["blocks.0.resid_pre"].array
    y = trace["blocks.0.resid_mid"].array[:, None]
    c = np.maximum(0, np.abs(y).sum(-1) - np.abs(y - vectors).sum(-1))
    assert np.allclose(influence(model, TOKENS, ("alti",))[0].matrix, c / c.sum(-1, keepdims=True))


def test_a_norm_that_centres_over_all_heads_is_refused(built):
    model = built(spec(attrs.evolve(PLAIN, z_norm=Norm(1e-5, True, "head d_value"))))
    with pytest.raises(UnsupportedModelError, match="centres z over all heads"):
        influence(model, TOKENS, ("alti",), target=3)
    assert influence(model, TOKENS, ("rollout",))[0].completeness_gap < 1e-12


def test_what_becomes_of_a_mixture_that_no_equation_says_is_refused(built):
    for attention, followed in ((attrs.evolve(PLAIN, mixed=False), True), (PLAIN, False)):
        found = spec(attention, multiplier=1.0)
        attn, mlp = found.blocks[0].branches
        block = attrs.evolve(found.blocks[0], branches=(attrs.evolve(attn, followed=followed), mlp))
        with pytest.raises(UnsupportedModelError, match="that no equation says"):
            path_sites(attrs.evolve(found, blocks=(block,)), 0)


def test_a_weight_that_is_missing_is_named():
    equations = Equations(spec(PLAIN))
    signals = {"blocks.0.attn.pattern": np.ones((4, 1, 1)), "blocks.0.attn.v": np.ones((1, 2, 5))}
    with pytest.raises(CapabilityError, match=r"blocks\.0\.attn\.W_O is not at hand"):
        paths(equations, 0, signals)


def test_attention_that_reads_the_stream_after_an_mlp_credits_that_stream(built):
    late = Block(
        (PreNorm("ln2", "resid_mid", Norm(1e-5)),),
        (Branch("mlp", "resid_pre", Mlp(6, "relu")), Branch("attn", "ln2.out", PLAIN)),
    )
    model = built(attrs.evolve(spec(PLAIN), blocks=(late,)))
    assert "blocks.0.resid_mid" in model.equations.steps
    assert influence(model, TOKENS, ("alti",))[0].completeness_gap < 1e-12


def test_a_block_without_attention_leaves_tokens_where_they_are(built):
    only = Block((), (Branch("mlp", "resid_pre", Mlp(6, "relu")),))
    with_it, without = (
        influence(built(attrs.evolve(spec(PLAIN), blocks=blocks)), TOKENS, ("alti", "rollout", "attention"))
        for blocks in ((spec(PLAIN).blocks[0], only), (spec(PLAIN).blocks[0],))
    )
    for a, b in zip(with_it, without, strict=True):
        assert np.allclose(a.matrix, b.matrix)
    assert with_it[0].layers[1].tolist() == with_it[1].layers[1].tolist() == [0, 0, 0, 0, 1]
    assert np.isnan(with_it[2].layers[1]).all()
    assert dict(with_it[2].notes)["blocks without attention"] == "1"


def test_where_no_token_comes_nearer_to_the_output_that_is_said(built):
    attention = attrs.evolve(PLAIN, biases="O")
    model = built(attrs.evolve(spec(attention, multiplier=1.0), blocks=spec(attention, multiplier=1.0).blocks[:1]))
    model.equations.weights["blocks.0.attn.b_O"][:] = 1e3 * np.sign(-model.trace(TOKENS)["blocks.0.resid_pre"].array[0])
    model.equations.weights["blocks.0.attn.W_O"][:] = 0
    (found,) = influence(model, TOKENS, ("alti",), position=0)
    assert "no token comes nearer" in found.warnings[0]
    assert found.matrix.sum(-1) == pytest.approx(np.ones(5))
