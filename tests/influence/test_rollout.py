"""Rollout against a product written out, its warnings, and the column of what sinks took."""

from __future__ import annotations

import numpy as np
import pytest

from llmtrace.influence import influence
from llmtrace.influence.method import Task
from llmtrace.influence.rollout import RolloutFold
from llmtrace.schema.evaluate import Equations
from llmtrace.spec import Attention, Block, Branch, ModelSpec, Norm
from llmtrace.trace import Token


def test_it_is_the_papers_product_on_what_transformers_shows(family, tiny, tokens):
    model, watched = tiny(family)
    (found,) = influence(model, tokens, ("rollout",))
    length = len(tokens)
    previous = {token: np.eye(length)[token] for token in range(length)}
    for block in watched.blocks:  # token attentions, recursively: each node mixes the nodes below, half of it its own
        previous = {
            i: 0.5 * previous[i]
            + 0.5 * sum(head[i, j] * previous[j] for head in block.pattern for j in range(length)) / len(block.pattern)
            for i in range(length)
        }
    for token in range(length):
        assert np.abs(found.matrix[token] - previous[token]).max() < 1e-6
    assert np.array_equal(found.scores, found.matrix[-1])


def test_sinks_take_their_share_and_it_is_reported_beside_the_tokens(tiny, tokens):
    model, watched = tiny("gpt_oss")
    (found,) = influence(model, tokens, ("rollout",))
    share = dict(found.parts)["attention sinks"]
    assert share > 0.01
    assert found.scores.sum() + share == pytest.approx(1, abs=1e-6)
    assert found.completeness_gap < 1e-6
    assert all(block.pattern.sum(-1).max() < 1 for block in watched.blocks)


def fold_over(*patterns, position=-1, sinks=()):
    """A rollout fold driven by hand with one pattern a layer, [head query key]."""
    attention = Attention(len(patterns[0]), len(patterns[0]), 4, 4, 0.5, sinks=bool(len(sinks)))
    block = Block((), (Branch("attn", "resid_pre", attention),))
    spec = ModelSpec("by hand", 8, 9, None, (block,) * len(patterns), Norm(1e-5))
    length = patterns[0].shape[-1]
    task = Task(Equations(spec), tuple(Token(i) for i in range(length)), position % length, Token(0))
    fold = RolloutFold(task)
    for layer, pattern in enumerate(patterns):
        taken = {f"blocks.{layer}.attn.sink": sinks[layer]} if len(sinks) else {}
        fold.layer(layer, {f"blocks.{layer}.attn.pattern": pattern} | taken)
    return fold.answer()


def test_heads_that_look_at_themselves_only_leave_every_token_where_it_is():
    identity = np.broadcast_to(np.eye(5), (3, 5, 5))
    found = fold_over(identity, identity, identity)
    assert np.array_equal(found.matrix, np.eye(5))
    assert found.completeness_gap == 0


def test_a_sinks_mass_is_carried_on_by_later_layers():
    half = np.broadcast_to(np.eye(2) / 2, (1, 2, 2))
    found = fold_over(half, half, sinks=[np.full((1, 2), 0.5)] * 2)
    # a layer keeps 3/4 and loses 1/4: after two layers 9/16 is left, and 7/16 is lost
    assert np.array_equal(found.matrix, np.eye(2) * 9 / 16)
    assert found.parts == (("attention sinks", 7 / 16),)
    assert found.completeness_gap == 0


def test_the_gap_tells_of_patterns_whose_rows_do_not_sum_to_one():
    assert fold_over(np.broadcast_to(0.9 * np.eye(3), (2, 3, 3))).completeness_gap == pytest.approx(0.05)
