"""Direct logit attribution against vectors sent through transformers' own final norm and head, and known answers."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from llmtrace.errors import UnsupportedModelError
from llmtrace.influence import influence, lens
from llmtrace.spec import Attention, Block, Branch, Carry, Head, Mixer, Mlp, ModelSpec, Norm, PreNorm, Unembedding

CAPPED = "gemma2"


def uncapped(logits, family):
    return 3 * np.arctanh(logits / 3) if family == CAPPED else logits


def test_scores_heads_and_layers_are_what_transformers_modules_make_of_each_source(family, tiny, tokens):
    model, watched = tiny(family)
    (found,) = influence(model, tokens, ("dla",), position=7, target=3, foil=44)
    by_path = np.stack(
        [watched.linear(block.sent.transpose(1, 0, 2, 3))[7] for block in watched.blocks]
    )  # [layer head key vocab]
    by_path = by_path[..., 3] - by_path[..., 44]
    assert np.abs(found.heads - by_path.sum(-1)).max() < 1e-5
    assert np.abs(found.layers - by_path.sum(1)).max() < 1e-5
    own = watched.linear(watched.embed[:, None])[7, 0]
    expected = by_path.sum((0, 1))
    expected[7] += own[3] - own[44]
    assert np.abs(found.scores - expected).max() < 1e-5
    assert dict(found.notes)["logit from the position's own embedding"] == pytest.approx(own[3] - own[44], abs=1e-5)
    for layer, block in enumerate(watched.blocks):
        mlp = watched.linear(block.mlp[:, None])[7, 0]
        assert dict(found.parts)[f"blocks.{layer}.mlp_out"] == pytest.approx(mlp[3] - mlp[44], abs=1e-5)


def test_scores_and_parts_add_up_to_the_logit_that_transformers_gives(family, tiny, tokens):
    model, watched = tiny(family)
    (found,) = influence(model, tokens, ("dla",), target=3, foil=44)
    logits = uncapped(watched.logits, family)[-1]
    assert found.scores.sum() + sum(value for _, value in found.parts) == pytest.approx(
        logits[3] - logits[44], abs=1e-5
    )
    assert found.completeness_gap < 1e-10
    notes = dict(found.notes)
    assert notes["logit"] == pytest.approx(logits[3] - logits[44], abs=1e-5)
    assert abs(notes["logit left unexplained"]) < 1e-9


def test_each_row_of_the_matrix_explains_its_own_predicted_token(family, tiny, tokens):
    model, watched = tiny(family)
    (found,) = influence(model, tokens, ("dla",))
    assert [token.id for token in found.predictions] == watched.logits.argmax(-1).tolist()
    expected = np.zeros((12, 12))
    for q, prediction in enumerate(found.predictions):
        for block in watched.blocks:
            expected[q] += watched.linear(block.sent.transpose(1, 0, 2, 3))[q, ..., prediction.id].sum(0)
        expected[q, q] += watched.linear(watched.embed[:, None])[q, 0, prediction.id]
    assert np.abs(found.matrix - expected).max() < 1e-5
    assert np.abs(found.matrix[-1] - found.scores).max() < 1e-12
    assert dict(found.notes)["logit left unexplained at the worst position"] < 1e-10


def test_through_a_softcap_the_uncapped_logit_is_parted_and_that_is_said(tiny, tokens):
    model, watched = tiny(CAPPED)
    (found,) = influence(model, tokens, ("dla",))
    capped = watched.logits[-1].max()
    assert dict(found.notes)["logit"] == pytest.approx(3 * np.arctanh(capped / 3), rel=1e-5)
    assert abs(dict(found.notes)["logit"] - capped) > 1e-3
    assert "uncapped" in dict(found.notes)["softcap"]


def test_biases_are_parts_of_their_own(tiny, tokens):
    model, _ = tiny("gpt2")
    parts = dict(influence(model, tokens, ("dla",))[0].parts)
    assert set(parts) == {*(f"blocks.{layer}.mlp_out" for layer in range(3)), "attention biases", "ln_final.b"}
    assert abs(parts["attention biases"]) > 1e-3
    assert abs(parts["ln_final.b"]) > 1e-3


def test_on_the_hand_built_model_one_head_moves_the_copied_token(hand):
    (found,) = influence(hand, "a b c d e a b c", ("dla",))
    assert found.target.text == "d"
    assert found.scores.argmax() == 4
    assert found.scores[4] == pytest.approx(dict(found.notes)["logit"], rel=1e-5)
    assert found.completeness_gap <= 1e-5
    others = np.abs(found.heads).copy()
    others[1, 0] = 0
    assert found.heads[1, 0] > 13
    assert others.max() < 1e-6


def scaled(**changes):
    """A spec with a stream scale in each block, which no tiny checkpoint has."""
    block = Block(
        (PreNorm("ln1", "resid_pre", Norm(1e-5)), PreNorm("ln2", "resid_mid", Norm(1e-5))),
        (
            Branch("attn", "ln1.out", Attention(2, 1, 4, 4, 0.5, biases="VO")),
            Branch("mlp", "ln2.out", Mlp(6, "gelu", bias=True)),
        ),
        stream_scale=0.7,
    )
    spec = ModelSpec(
        "by hand", 8, 11, None, (block, block), Norm(1e-5, centred=True, bias=True), unembed=Unembedding(2.0, bias=True)
    )
    return attrs.evolve(spec, **changes)


def test_what_stands_before_a_scaled_stream_shrinks_with_it(built):
    (found,) = influence(built(scaled()), [1, 2, 3, 2], ("dla",), target=5)
    assert found.completeness_gap < 1e-12
    assert {"unembed.b_U", "ln_final.b", "attention biases"} < set(dict(found.parts))


def test_a_capped_logit_that_was_rounded_to_the_cap_leaves_the_gap_open(built):
    model = built(scaled(unembed=Unembedding(1e6, softcap=3.0)))
    (found,) = influence(model, [1, 2, 3, 2], ("dla",))
    assert found.completeness_gap is None
    assert "softcap" in found.warnings[0]


def test_weights_that_are_not_those_of_the_run_are_found_out(tiny, tokens, monkeypatch):
    model, _ = tiny("llama")
    wrong = dict(model.equations.weights)
    wrong["blocks.1.attn.W_O"] = np.asarray(wrong["blocks.1.attn.W_O"])[::-1]
    from llmtrace.influence.dla import DlaFold
    from llmtrace.influence.method import Task

    named = model.tokens(tokens)
    fold = DlaFold(Task(attrs.evolve(model.equations, weights=wrong), named, 11, named[0], None, named))
    model.fold(tokens, [fold])
    answer = fold.answer()
    assert answer.completeness_gap > 0.01
    assert "completeness gap" in answer.warnings[0]


def test_a_mixers_output_is_a_part_and_no_tokens(built):
    mixer = Block((), (Branch("mixer", "resid_pre", Mixer("mamba2")),))
    model = built(scaled(blocks=(mixer,)))
    from llmtrace.influence.dla import DlaFold
    from llmtrace.influence.method import Task

    named = model.tokens([1, 2, 3])
    fold = DlaFold(Task(model.equations, named, 2, named[0], None, named))
    random = np.random.default_rng(0)
    out = random.normal(size=(3, 8))
    signals = dict(
        model.equations.run(
            {"tokens": np.array([1, 2, 3]), "positions": np.arange(3), "blocks.0.mixer_out": out}, list(fold.sites)
        )
    )
    fold.layer(0, signals)
    fold.finish(signals)
    answer = fold.answer()
    assert answer.completeness_gap < 1e-12
    assert dict(answer.parts)["blocks.0.mixer_out"] != 0
    assert (answer.scores[:2] == 0).all()
    assert "mamba2" in dict(answer.notes)["credited to no token"]


CARRIED = attrs.evolve(
    scaled().blocks[0], carry_pre=Carry(bias=True), carry_mid=Carry("", 0.6, weight=True), carry_post=Carry("", 0.8, True, True)
)  # fmt: skip


def test_each_term_is_as_large_as_what_later_sums_carry_on_of_it(built):
    """By running the model again: with all denominators fixed, a term that is taken away takes its own part of the logit away."""
    branches = tuple(attrs.evolve(branch, weight=True) for branch in CARRIED.branches)
    model = built(scaled(blocks=(attrs.evolve(CARRIED, branches=branches), CARRIED)))
    ids, target = [1, 2, 3, 2], 5
    (found,) = influence(model, ids, ("dla",), target=target)
    assert found.completeness_gap < 1e-12
    parts = dict(found.parts)
    assert abs(parts["stream biases"]) > 1e-3
    weights, kept = model.equations.weights, model.trace(ids).known
    w = {name: np.asarray(weights[name]) for name in weights}
    end, out = 1.0, kept["blocks.0.mlp_out"][-1]
    for at, scale in (("blocks.1.resid_mid", 0.6), ("blocks.1.resid_post", 0.8 * 0.7)):
        end = end * scale * w[f"{at}.w"]
    gone = 0.7 * end * out  # of the last stream
    gone = (gone - gone.mean()) / kept["ln_final.scale"][-1] * w["ln_final.w"]
    assert parts["blocks.0.mlp_out"] == pytest.approx(2.0 * gone @ w["unembed.W_U"][:, target], rel=1e-9)


def test_a_stream_that_goes_through_norms_is_refused(built):
    block = attrs.evolve(scaled().blocks[0], carry_post=Carry("ln2.out"))
    with pytest.raises(
        UnsupportedModelError, match="in block 0 of this by hand model the stream itself goes through a norm"
    ):
        influence(built(scaled(blocks=(block,))), [1, 2, 3], ("dla",), target=5)


@pytest.mark.parametrize("method", ["dla", "lens"])
def test_a_head_before_the_unembedding_is_refused(method, built):
    model = built(scaled(head=Head("gelu")))
    with pytest.raises(UnsupportedModelError, match="another matrix and an activation stand between"):
        influence(model, [1, 2, 3], ("dla",), target=5) if method == "dla" else lens(model, [1, 2, 3])
