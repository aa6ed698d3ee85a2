"""Ablations against a run with the mean put in by hand, and how they are judged."""

from types import SimpleNamespace

import numpy as np
import pytest
from attrs import evolve

import llmtrace
from llmtrace import edits
from llmtrace.circuits import Node, ablation, built_in, repeated
from llmtrace.circuits.ablation import RANDOM_HEADS, Losses, judged, nll, null_heads
from llmtrace.circuits.motif import Expectation
from llmtrace.errors import CircuitError
from llmtrace.model import Model

CHECK = built_in()["induction"].check
NOTHING = [np.zeros(8)] * RANDOM_HEADS
ALONE = np.full(8, 0.25)


def test_the_change_is_that_of_a_run_with_the_mean_in_the_heads_place():
    with llmtrace.open("builtin:induction", backend="reference") as model:
        over = repeated(model, prompts=6, period=8)
        site = "blocks.1.attn.z_post"
        site = site if site in model.equations.steps else "blocks.1.attn.z"
        kept = np.concatenate([model.trace(ids, capture=site)[site].array[:, 0] for ids in over.prompts])
        change = Losses(model, over).change(Node("head", 1, 0))
        for number, ids in enumerate(over.prompts):
            loss = {}
            for edited in (False, True):
                wanted = [edits.replace(site, kept.mean(0), heads=[0])] if edited else []
                logits = model.trace(ids, capture="logits", edits=wanted)["logits"].array.astype(np.float64)
                p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
                loss[edited] = -np.mean([np.log(p[row, ids[row + 1]]) for row in over.scored[number]])
            assert change[number] == pytest.approx(loss[True] - loss[False], abs=1e-9)


@pytest.mark.parametrize(("logits", "at_once"), [(2**27, 6), (2 * 7 * 16, 2), (1, 1)])
def test_of_long_prompts_fewer_run_at_once(monkeypatch, logits, at_once):
    monkeypatch.setattr(ablation, "LOGITS", logits)
    with llmtrace.open("builtin:induction", backend="reference") as model:
        over, ran = repeated(model, prompts=6, period=8), []
        monkeypatch.setattr(
            model,
            "trace_many",
            lambda prompts, **rest: ran.append(len(prompts)) or Model.trace_many(model, prompts, **rest),
        )
        losses = Losses(model, over).without([])
    assert ran == [at_once] * (6 // at_once)
    assert losses.shape == (6,)


def test_a_head_that_its_peer_backs_up_is_seen_when_the_peer_is_gone():
    """Of two heads that do nearly the same, either alone is hardly missed; the second to go takes it all with it."""
    losses = Losses.__new__(Losses)
    one, two = Node("head", 0, 0), Node("head", 0, 1)
    losses._losses = {
        frozenset(gone): np.full(6, loss)
        for gone, loss in (((), 1.0), ((one,), 1.25), ((two,), 1.5), ((one, two), 4.0))
    }
    assert losses.change(one).tolist() == [0.25] * 6
    assert losses.change(one, [one, two]).tolist() == [2.5] * 6


def test_a_loss_that_is_not_finite_is_refused_and_no_small_p():
    losses = Losses.__new__(Losses)
    losses._losses = {}
    losses._means = SimpleNamespace(of=lambda node: ("blocks.0.attn.z_post", np.zeros(2)))
    losses._run = lambda edits: np.array([1.0, np.nan])
    with pytest.raises(CircuitError, match=r"loss of prompt 2 without a0\.h1 is not finite"):
        losses.change(Node("head", 0, 1))


def test_the_loss_of_equal_logits_is_the_log_of_their_number():
    assert nll(np.full((3, 16), 7.0), [0, 5, 15]) == pytest.approx(np.log(16))


def test_a_change_beyond_all_random_heads_holds():
    found = judged(CHECK, np.linspace(0.9, 1.1, 8), NOTHING, ALONE, 0)
    assert found.held
    assert found.p == pytest.approx(1 / (1 + RANDOM_HEADS))
    assert found.effect == pytest.approx(1.0)
    assert found.alone == pytest.approx(0.25)


@pytest.mark.parametrize("larger", [2, 10, RANDOM_HEADS])
def test_a_change_that_random_heads_reach_does_not(larger):
    null = [np.full(8, 2.0 if place < larger else 0.0) for place in range(RANDOM_HEADS)]
    found = judged(CHECK, np.linspace(0.9, 1.1, 8), null, ALONE, 0)
    assert not found.held
    assert found.p == pytest.approx((1 + larger) / (1 + RANDOM_HEADS))


def test_a_change_whose_interval_holds_zero_does_not():
    assert not judged(CHECK, np.array([3.0, -1, 2, -2, 1, -1, 2, -2]), NOTHING, ALONE, 0).held


def test_a_check_may_expect_less_loss():
    lower = evolve(CHECK, effect=Expectation("<", 0.0))
    assert judged(lower, np.linspace(-1.1, -0.9, 8), NOTHING, ALONE, 0).held
    assert not judged(lower, np.linspace(0.9, 1.1, 8), NOTHING, ALONE, 0).held


def test_without_random_heads_nothing_is_causal():
    assert not judged(CHECK, np.ones(8), [], ALONE, 0).held


def test_random_heads_are_drawn_from_those_that_are_not_taken():
    heads = [Node("head", layer, head) for layer in range(9) for head in range(9)]
    drawn = null_heads(heads, heads[:30], 0)
    assert len(set(drawn)) == RANDOM_HEADS
    assert set(drawn).isdisjoint(heads[:30])
    assert drawn == null_heads(heads, heads[:30], 0)
    assert drawn != null_heads(heads, heads[:30], 1)
    assert null_heads(heads[:3], heads[:1], 0) == heads[1:3]
