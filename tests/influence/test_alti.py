"""ALTI against naive loops over what transformers' modules show, and its laws."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

from llmtrace.influence import alti, influence
from llmtrace.schema.arithmetic import NumPy
from llmtrace.spec import Carry
from tests.specs import SPECS


def naive(watched) -> np.ndarray:
    """The paper's formula, entry by entry."""
    product = np.eye(len(watched.embed))
    for block in watched.blocks:
        c = np.zeros_like(product)
        for i, y in enumerate(block.y):
            for j in range(len(c)):
                c[i, j] = max(0.0, np.abs(y).sum() - np.abs(y - block.transformed[i, j]).sum())
            c[i] /= c[i].sum()
        product = c @ product
    return product


def test_it_is_the_papers_formula_on_what_transformers_shows(family, tiny, tokens):
    model, watched = tiny(family)
    (found,) = influence(model, tokens, ("alti",))
    expected = naive(watched)
    assert np.abs(found.matrix - expected).max() < 1e-5
    assert np.array_equal(found.scores, found.matrix[-1])
    assert np.abs(expected - np.tril(np.ones_like(expected)) / 12).max() > 0.1  # the comparison is not between trifles


def test_its_transformed_vectors_and_biases_add_up_to_the_stream_after_attention(family, tiny, tokens):
    model, _ = tiny(family)
    assert influence(model, tokens, ("alti",))[0].completeness_gap < 1e-12


def test_the_gap_tells_of_a_capture_that_breaks_the_law(tiny, tokens):
    model, _ = tiny("llama")
    steps = model.equations.steps
    fold = alti.AltiFold(task_of(model, tokens))
    signals = {site: array for site, array in model.trace(tokens).known.items() if site in steps}
    signals["blocks.1.resid_mid"] = (
        signals["blocks.1.resid_mid"] * np.where(np.arange(len(tokens)) == 3, 1.01, 1)[:, None]
    )
    for layer in range(3):
        fold.layer(layer, signals)
    assert fold.answer().completeness_gap == pytest.approx(0.01, rel=0.05)


def task_of(model, tokens, position=-1):
    """A task as `run` makes it."""
    from llmtrace.influence import Task

    named = model.tokens(tokens)
    return Task(model.equations, named, position % len(named), named[-1], None, named)


def test_the_gap_stays_below_1e_5_in_single_precision(family, tiny, tokens, monkeypatch):
    model, watched = tiny(family)
    monkeypatch.setattr(alti, "LONG", 1)
    (found,) = influence(model, tokens, ("alti",))
    assert dict(found.notes)["computed in"] == "float32"
    assert 0 < found.completeness_gap < 1e-5
    assert np.abs(found.matrix - naive(watched)).max() < 1e-4


@pytest.mark.parametrize("block", [1, 3 * 3 * 64, 5 * 5 * 64])
def test_the_size_of_its_chunks_changes_nothing(block, tiny, tokens):
    for family in ("llama", "gpt_oss"):
        model, _ = tiny(family)
        (whole,) = influence(model, tokens, ("alti",))
        model.equations = evolve(model.equations, arithmetic=NumPy(block))
        (chunked,) = influence(model, tokens, ("alti",))
        assert np.allclose(chunked.matrix, whole.matrix, rtol=0, atol=1e-13)
        assert chunked.completeness_gap < 1e-12


def test_on_the_hand_built_model_the_copied_token_stands_out(hand):
    (found,) = influence(hand, "a b c d e a b c d e a b c", ("alti",))
    assert found.target.text == "d"
    assert found.completeness_gap <= 1e-5
    others = np.delete(found.layers[1], [4, 9, 13])
    assert min(found.layers[1][[4, 9]]) > 3 * others.max()  # both earlier `d`s enter in the induction head's layer


def test_no_rounding_of_a_sum_credits_a_hidden_token(built):
    from llmtrace.influence.paths import Paths
    from llmtrace.spec import Attention

    random = np.random.default_rng(0)
    mass = np.tril(random.random((2, 9, 9)))
    through = Paths(mass, random.normal(size=(9, 2, 3)), None, random.normal(size=(2, 3, 300)), np.zeros((9, 300)))
    y = np.asfortranarray(random.normal(size=(9, 300)))  # summed in another order than the vectors
    c, _ = alti.contributions(through, np.zeros((9, 300)), y, Attention(2, 2, 3, 3, 1.0))
    assert (np.triu(c, 1) == 0).all()


@pytest.mark.parametrize(
    ("mid", "post"),
    [(Carry("", 0.6, weight=True), Carry()), (Carry("", 0.6, True, True), Carry("", 0.5)), (Carry("ln1.out", 0.6), Carry("ln2.out"))],
)  # fmt: skip
def test_what_goes_on_of_the_stream_is_the_tokens_own(mid, post, built):
    """Against the paper's formula on what the equations show, with the stream that goes on beside attention written out."""
    block = evolve(SPECS["sequential"].blocks[0], carry_mid=mid, carry_post=post)
    model = built(evolve(SPECS["sequential"], blocks=(block,)))
    ids = [1, 2, 3, 2, 5]
    (found,) = influence(model, ids, ("alti",))
    assert found.completeness_gap < 1e-12
    weights, known = model.equations.weights, model.trace(ids).known
    base = known["blocks.0.ln1.out" if mid.reads else "blocks.0.resid_pre"]
    base = base + (weights["blocks.0.resid_mid.b"] if mid.bias else 0)
    base = 0.6 * base * (weights["blocks.0.resid_mid.w"] if mid.weight else 1)
    values = np.repeat(known["blocks.0.attn.v"], 2, axis=1)
    sent = np.einsum("hqk,khd,hdm->qkm", known["blocks.0.attn.pattern"], values, weights["blocks.0.attn.W_O"])
    for token, own in enumerate(base):
        sent[token, token] += own
    y = known["blocks.0.resid_mid"]
    c = np.maximum(0, np.abs(y).sum(-1)[:, None] - np.abs(y[:, None] - sent).sum(-1))
    np.testing.assert_allclose(found.matrix, c / c.sum(-1, keepdims=True), atol=1e-9)
