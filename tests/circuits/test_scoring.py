"""Scores against loops over rows and keys, on patterns that are drawn."""

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtrace.circuits.scoring import SHUFFLES, Scoring, heads_of, shuffles_of
from llmtrace.circuits.where import Where
from tests import specs

WHERES = [
    Where(f"pattern[q, {keys}]")
    for keys in ("q - 1", "last(token[q]) + 1", "all(token[q])", "bos", "self", "q - 2:q + 1")
]


def causal(random, heads, tokens, window):
    """A pattern of random weights over what each row sees."""
    place = np.arange(tokens)
    seen = (place[None] <= place[:, None]) & (place[:, None] - place[None] < (window or tokens))
    weights = random.random((heads, tokens, tokens)) * seen
    return weights / weights.sum(-1, keepdims=True), seen


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.sampled_from([None, 2, 4]), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_a_score_is_the_mean_mass_over_rows_that_could_have_looked_elsewhere(ids, window, seed):
    spec = specs.model(specs.sequential(evolve(specs.GQA, window=window)))
    pattern, seen = causal(np.random.default_rng(seed), 4, len(ids), window)
    scoring = Scoring(spec, ids, WHERES, SHUFFLES, np.random.default_rng(0))
    scoring.layer(0, {"blocks.0.attn.pattern": pattern})
    found = scoring.found()
    for where in WHERES:
        keys, masses, chances = where.keys(ids), [], []
        for q in range(len(ids)):
            looked = [k for k in range(len(ids)) if keys[q, k] and seen[q, k]]
            if looked and len(looked) < seen[q].sum():
                masses.append(pattern[:, q, looked].sum(-1))
                chances.append(len(looked) / seen[q].sum())
        mass, chance, rows, shuffled = found[where]
        assert rows.tolist() == [len(masses)] * 4
        if masses:
            np.testing.assert_allclose(mass, np.mean(masses, axis=0), atol=1e-12)
            np.testing.assert_allclose(chance, np.mean(chances), atol=1e-12)
        else:
            assert np.isnan(mass).all()
            assert np.isnan(shuffled).all()


def test_shuffled_rows_have_the_mass_of_chance_on_average():
    random, ids = np.random.default_rng(1), list(range(40))
    spec = specs.model(specs.sequential())
    pattern, _ = causal(random, 4, 40, None)
    scoring = Scoring(spec, ids, WHERES, SHUFFLES, random)
    scoring.layer(0, {"blocks.0.attn.pattern": pattern})
    _, chance, _, shuffled = scoring.found()[WHERES[0]]
    assert shuffled.shape == (SHUFFLES, 4)
    np.testing.assert_allclose(shuffled.mean(), chance[0], rtol=0.05)


def test_a_head_that_always_looks_there_has_score_one_and_its_shuffled_score_is_chance():
    ids = list(range(30))
    spec = specs.model(specs.sequential())
    pattern = np.tile(np.eye(30, k=-1) + np.diag([1.0] + [0.0] * 29), (4, 1, 1))
    scoring = Scoring(spec, ids, WHERES, SHUFFLES, np.random.default_rng(0))
    scoring.layer(0, {"blocks.0.attn.pattern": pattern})
    mass, chance, rows, shuffled = scoring.found()[Where("pattern[q, q - 1]")]
    assert mass.tolist() == [1.0] * 4
    assert rows[0] == 29
    assert shuffled.mean() == pytest.approx(chance[0], rel=0.2)


def test_heads_are_named_in_dataflow_order_and_blocks_without_attention_have_none():
    spec = specs.model(specs.sequential(), specs.sequential())
    assert [str(node) for node in heads_of(spec)] == [f"a{layer}.h{head}" for layer in (0, 1) for head in range(4)]


def test_long_prompts_have_fewer_orders_and_always_one():
    assert (shuffles_of(64), shuffles_of(4096), shuffles_of(100_000)) == (SHUFFLES, 4, 1)
