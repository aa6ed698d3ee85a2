"""What holds for every model: rows that sum to one, causality, windows. Random specs with random weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmtrace.influence import influence
from llmtrace.spec import Attention, Block, Branch, Gate, Mlp, ModelSpec, Norm, PreNorm, Rotary

METHODS = ("attention", "rollout", "alti", "dla")


@st.composite
def models(draw, window=None, layers=None):
    """Sequential or parallel blocks; grouped heads, gates, sinks, post-norms, biases, multipliers."""
    kv = draw(st.sampled_from([1, 2]))
    attention = Attention(
        kv * draw(st.sampled_from([1, 2])), kv, 4, draw(st.sampled_from([3, 4])), 0.7,
        rotary=draw(st.sampled_from([None, Rotary(100.0, 4)])), biases=draw(st.sampled_from(["", "V", "VO"])),
        window=window, sinks=draw(st.booleans()), gate=draw(st.sampled_from([None, Gate(), Gate(per_head=True)])),
        z_norm=draw(st.sampled_from([None, Norm(1e-5, over="d_value")])),
    )  # fmt: skip
    post = draw(st.sampled_from([None, Norm(1e-5), Norm(1e-5, centred=True, bias=True)]))
    reads = draw(st.sampled_from(["resid_mid", "resid_pre"]))
    block = Block(
        (PreNorm("ln1", "resid_pre", Norm(1e-5)), PreNorm("ln2", reads, Norm(1e-5))),
        (
            Branch("attn", "ln1.out", attention, post, draw(st.sampled_from([1.0, 0.3]))),
            Branch("mlp", "ln2.out", Mlp(5, "silu")),
        ),
    )
    count = layers or draw(st.integers(1, 3))
    return ModelSpec("random", 8, 7, None, (block,) * count, Norm(1e-5, centred=draw(st.booleans())))


prompts = st.lists(st.integers(0, 6), min_size=1, max_size=9)
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(spec=models(), prompt=prompts, seed=st.integers(0, 9))
def test_rows_of_rollout_and_alti_sum_to_one_and_every_identity_holds(spec, prompt, seed, built):
    _, rollout, alti, dla = influence(built(spec, seed, std=0.8), prompt, METHODS)
    assert alti.matrix.sum(-1) == pytest.approx(np.ones(len(prompt)), abs=1e-9)
    assert rollout.scores.sum() + sum(value for _, value in rollout.parts) == pytest.approx(1, abs=1e-9)
    assert (alti.matrix >= 0).all()
    assert max(alti.completeness_gap, rollout.completeness_gap, dla.completeness_gap) < 1e-9


@quick
@given(spec=models(), prompt=prompts, seed=st.integers(0, 9), data=st.data())
def test_a_later_token_has_exactly_no_influence(spec, prompt, seed, data, built):
    position = data.draw(st.integers(0, len(prompt) - 1))
    for found in influence(built(spec, seed, std=0.8), prompt, METHODS, position=position):
        assert (found.scores[position + 1 :] == 0).all()
        assert (np.triu(found.matrix, 1) == 0).all()


@quick
@given(window=st.integers(1, 3), layers=st.integers(1, 2), seed=st.integers(0, 9), data=st.data())
def test_what_windows_hide_has_exactly_no_influence(window, layers, seed, data, built):
    spec = data.draw(models(window=window, layers=layers))
    reach = layers * (window - 1)  # no token older than that can matter
    for found in influence(built(spec, seed, std=0.8), [1, 2, 3, 4, 5, 6, 1, 2], METHODS):
        assert (found.scores[: max(0, 7 - reach)] == 0).all()
        assert (np.tril(found.matrix, -reach - 1) == 0).all()
        assert found.method != "rollout" or found.scores[7 - reach] > 0  # and the oldest that can, does


@quick
@given(spec=models(), prompt=prompts, seed=st.integers(0, 9), data=st.data())
def test_a_row_of_the_matrix_is_what_the_shorter_prompt_gives(spec, prompt, seed, data, built):
    length = data.draw(st.integers(1, len(prompt)))
    model = built(spec, seed, std=0.8)
    whole, short = influence(model, prompt, METHODS), influence(model, prompt[:length], METHODS)
    for a, b in zip(whole, short, strict=True):
        assert a.matrix[:length, :length] == pytest.approx(b.matrix, abs=1e-9)
