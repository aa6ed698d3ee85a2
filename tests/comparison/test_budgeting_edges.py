"""Budgets where something is not as usual: other runtimes, numbers that are not finite, logits that are not at hand, weights that move nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve
from safetensors.numpy import load_file

import llmtrace
from llmtrace.comparison import budgeting
from llmtrace.comparison.budget_text import Piece
from llmtrace.comparison.sides import Side
from llmtrace.errors import CapabilityError, OptionError, UnsupportedModelError
from llmtrace.model import Model
from llmtrace.selection import select
from tests import specs
from tests.comparison.budgets import PROMPTS, TEXT, copied, in_few_bits, kl_of, logits_of, made, opens, tiny
from tests.specs import WeighedSession


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def quantised(model, tmp_path_factory) -> Path:
    return in_few_bits(model, tmp_path_factory.mktemp("quantised") / "model")


def test_what_a_runtime_does_is_held_to_the_reference_with_the_candidate_s_weights(model, quantised, tmp_path):
    """A candidate that divides by other norms: by transformers, of the model as it is, with the weights, and with the norms besides."""
    other = copied(quantised, tmp_path / "other", lambda name, tensor: tensor)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    found = made("reference", model, other)
    new = load_file(other / "model.safetensors")
    plain, itself = logits_of(model, {}, PROMPTS), logits_of(other, {}, PROMPTS)
    every = logits_of(model, {name: tensor for name, tensor in new.items() if tensor.ndim > 1}, PROMPTS)
    assert found.runtime.kl == pytest.approx(kl_of(every, itself), rel=1e-3)
    assert found.runtime.kl != pytest.approx(kl_of(itself, every), rel=1e-2)
    assert found.candidate.kl == pytest.approx(kl_of(plain, itself), rel=1e-3)
    assert found.rest == pytest.approx(kl_of(plain, itself) - kl_of(plain, every), rel=1e-2)
    assert abs(found.rest) > 0.1 * found.candidate.kl


def changed(model, directory, **tensors):
    """The model with some of its tensors made others."""
    return copied(
        model,
        directory,
        lambda name, tensor: next((make(tensor.copy()) for end, make in tensors.items() if end in name), tensor),
    )


def test_a_weight_that_moves_nothing_costs_nothing(model, tmp_path):
    """The row of a token that no prompt has."""

    def other_row(table):
        table[50] += 1
        return table

    found = made("reference", model, changed(model, tmp_path / "other", embed_tokens=other_row))
    (swap,) = found.swaps
    assert (swap.names, swap.distance.kl, swap.share, swap.cumulative) == (("embed.W_E",), 0.0, 0.0, 0.0)
    assert (found.total, found.relative_excess) == (0.0, None)
    assert found.headline.startswith("no weight that differs moves any prediction")


def test_a_weight_with_which_nothing_finite_comes_out_is_left_out_of_the_sum(model, tmp_path):
    """Weights that float16 holds, and whose logits it does not."""
    pytest.importorskip("torch")
    directory = changed(
        model,
        tmp_path / "other",
        lm_head=lambda tensor: np.full_like(tensor, 3e4),
        down_proj=lambda tensor: np.float32(1.1) * tensor,
    )
    with (
        llmtrace.open(model, backend="torch", options={"dtype": "float16"}) as reference,
        opens("reference", directory) as candidate,
    ):
        found = llmtrace.compare(reference, candidate, prompts=PROMPTS, budget=True).candidates[0].budget
    assert found.notes == ("The reference computes in float16, so that the candidate's weights are rounded to it.",)
    assert {swap.names for swap in found.swaps} == {(f"blocks.{layer}.mlp.W_out",) for layer in range(3)}
    assert 0 < found.total < math.inf
    assert sum(swap.share for swap in found.swaps) == pytest.approx(1)
    assert [(each.names, each.why) for each in found.unswapped] == [
        (("unembed.W_U",), "the reference computes numbers with it that are not finite")
    ]
    assert (found.together.kl, found.runtime) == (math.inf, None)
    assert math.isfinite(found.candidate.kl)


def test_a_reference_that_computes_nothing_finite_is_none(model, tmp_path):
    bad = changed(model, tmp_path / "bad", lm_head=lambda tensor: np.where(np.arange(64) == 5, np.inf, tensor))
    with opens("reference", bad) as reference, opens("reference", model) as candidate:
        pieces = [Piece(tuple(ids)) for ids in PROMPTS]
        with pytest.raises(
            UnsupportedModelError, match="logits that are not finite: there is nothing to hold predictions to"
        ):
            budgeting.budget(*map(side_of, (reference, candidate)), pieces, [], lambda text: None)


def side_of(model, trace=None):
    """An open model, or a trace of it."""
    return Side(model.info, model.equations, model.session.stored, None if trace else model, trace)


def of_prompt(reference, candidate, prompt=PROMPTS[1]):
    return budgeting.budget(reference, candidate, [Piece(tuple(prompt))], [], lambda text: None)


def test_a_candidate_whose_logits_are_not_at_hand_is_not_beside_the_reference(model, quantised):
    """A trace without them, and one with those of two tokens."""
    with opens("reference", model) as reference, opens("reference", quantised) as candidate:
        ours = side_of(reference)
        for capture in (["blocks.0.attn.q"], select("logits", tokens=[3, 4])):
            trace = candidate.trace(PROMPTS[1], capture=capture).with_weights({})
            found = of_prompt(ours, side_of(candidate, trace))
            assert (found.candidate, found.runtime, found.rest, found.together.kl) == (None, None, None, 0.0)
        whole = candidate.trace(PROMPTS[1], capture="logits").with_weights({})
        assert of_prompt(ours, side_of(candidate, whole)).candidate.kl > 0


def test_a_candidate_that_computes_nothing_finite_is_not_beside_the_reference(model, tmp_path):
    bad = changed(model, tmp_path / "bad", lm_head=lambda tensor: np.where(np.arange(64) == 5, np.inf, tensor))
    with opens("reference", model) as reference, opens("reference", bad) as candidate:
        found = of_prompt(side_of(reference), side_of(candidate))
    assert (found.candidate, found.runtime, found.together.kl) == (None, None, 0.0)


def test_nor_is_one_that_does_so_on_one_prompt_of_several_whichever_that_is(model, tmp_path, monkeypatch):
    """On that with token 13, each prompt a batch of its own."""

    def spoiled(table):
        table[13] = np.inf
        return table

    monkeypatch.setattr(budgeting, "HELD", 1)
    bad = changed(model, tmp_path / "bad", embed_tokens=spoiled)
    with opens("reference", model) as reference, opens("reference", bad) as candidate:
        for prompts in (PROMPTS, PROMPTS[::-1]):
            pieces = [Piece(tuple(ids)) for ids in prompts]
            found = budgeting.budget(side_of(reference), side_of(candidate), pieces, [], lambda text: None)
            assert (found.candidate, found.runtime) == (None, None)
            assert (found.predictions, found.pieces) == (19, 3)


def test_what_a_budget_needs_is_looked_for_before_anything_is_run(model, quantised):
    with opens("reference", model) as reference, opens("reference", quantised) as candidate:
        ours, theirs = side_of(reference), side_of(candidate)
        asked = budgeting.Asked(TEXT, 12)
        assert len(budgeting.prepared(ours, [theirs], asked)) == 3
        equations = theirs.equations
        bare = evolve(theirs, equations=evolve(equations, weights={}))
        with pytest.raises(CapabilityError, match=r"A budget needs the weights of .*, which cannot be read here"):
            budgeting.prepared(ours, [theirs, bare], asked)
        short = evolve(theirs, equations=evolve(equations, spec=evolve(equations.spec, context=10)))
        with pytest.raises(OptionError, match="A chunk of 12 tokens is more than the models' context of 10"):
            budgeting.prepared(ours, [theirs, short], asked)
        boundless = evolve(theirs, equations=evolve(equations, spec=evolve(equations.spec, context=None)))
        assert len(budgeting.prepared(ours, [boundless], asked)) == 3
        with pytest.raises(CapabilityError, match="fake cannot compute with other weights"):
            budgeting.prepared(
                side_of(Model(WeighedSession(specs.equations(specs.SPECS["sequential"])))), [theirs], asked
            )
