"""The hand-built model gives the answers that it was built to give. All through the public door, at the reference backend."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import llmtrace
from llmtrace.data import embedded
from llmtrace.data.roles import CERTAIN, GUESSING, ROLES
from llmtrace.errors import OptionError
from llmtrace.testing import handmade

CASES = [(5, 2), (5, 3), (12, 2), (12, 20), (15, 3)]
"""Period and number of copies; 12 times 20 and `<bos>` are 241 tokens."""


def repeated(period: int, copies: int, seed: int = 0) -> list[int]:
    """`<bos> p p …`, p without a repeated letter."""
    p = 1 + np.random.default_rng(seed).permutation(15)[:period]
    return [0, *np.tile(p, copies).tolist()]


def losses(trace, ids) -> np.ndarray:
    """Nats of each token but the first, from the logits before it."""
    logits = trace["logits"].array.astype(np.float64)[:-1]
    shifted = logits - logits.max(-1, keepdims=True)
    return np.log(np.exp(shifted).sum(-1)) - shifted[np.arange(len(ids) - 1), ids[1:]]


def later(period: int, ids: list[int]) -> slice:
    """Where `losses` speaks of the second and later copies, without the first token of the second, which has no cue."""
    return slice(period + 1, len(ids) - 1)


@pytest.fixture(scope="module")
def model():
    with llmtrace.open("builtin:induction") as opened:
        yield opened


@pytest.fixture(scope="module", params=CASES, ids=str)
def run(request, model):
    period, copies = request.param
    ids = repeated(period, copies)
    return period, ids, model.trace(ids, capture=["blocks.*.attn.pattern", "logits"])


def test_the_previous_token_head_attends_to_the_position_before(run):
    _, ids, trace = run
    mass = trace["blocks.0.attn.pattern"].array[0]
    assert min(mass[t, t - 1] for t in range(1, len(ids))) > 1 - 1e-6


def test_the_induction_head_attends_to_what_followed_the_earlier_occurrences(run):
    period, ids, trace = run
    mass = trace["blocks.1.attn.pattern"].array[0]
    scores = [mass[t, t - period + 1 : 1 : -period] for t in range(period + 1, len(ids))]
    assert min(score.sum() for score in scores) > 1 - 1e-6
    assert all(score.max() < 1.5 / len(score) for score in scores)  # several occurrences share it


def test_the_induction_head_rests_on_bos_where_nothing_matches(run):
    period, _, trace = run
    assert trace["blocks.1.attn.pattern"].array[0, 1 : period + 1, 0].min() > 1 - 1e-6


def test_the_mean_head_attends_to_all_positions_equally(run):
    _, ids, trace = run
    mass = trace["blocks.0.attn.pattern"].array[1]
    for t in range(len(ids)):
        np.testing.assert_allclose(mass[t, : t + 1], 1 / (t + 1), rtol=1e-12)


@pytest.mark.parametrize("period", [5, 12, 15])
def test_the_duplicate_token_head_shares_its_mass_among_both_occurrences(model, period):
    ids = repeated(period, 2)
    mass = model.trace(ids, capture="blocks.1.attn.pattern")["blocks.1.attn.pattern"].array[1]
    rows = range(period + 1, len(ids))
    assert np.mean([mass[t, t - period] for t in rows]) == pytest.approx(0.4975, abs=2e-3)
    assert np.mean([mass[t, t] for t in rows]) == pytest.approx(0.5025, abs=2e-3)


def test_later_copies_are_certain_and_the_first_is_a_guess(run):
    period, ids, trace = run
    loss = losses(trace, ids)
    assert loss[later(period, ids)].mean() == pytest.approx(1.4e-5, abs=1e-6)
    assert CERTAIN < loss[later(period, ids)].max() < 1.65e-5
    np.testing.assert_allclose(loss[:period], 2.7726, atol=1e-4)
    assert pytest.approx(2.772589, abs=1e-6) == GUESSING


@pytest.mark.parametrize("name", ROLES)
def test_only_the_heads_that_are_needed_matter(model, name):
    """Zero ablation, by giving the run what the head's layer hands on with that head at zero."""
    role = ROLES[name]
    site = f"blocks.{role.layer}.attn.z_post"
    ids = repeated(12, 2)
    without = model.trace(ids, capture=site)[site].array.copy()
    without[:, role.head] = 0
    loss = losses(model.trace(ids, capture="logits", replay={site: without}), ids)[later(12, ids)].mean()
    assert loss == pytest.approx(GUESSING if role.needed else 1.4e-5, abs=2e-5)


@pytest.mark.parametrize("layer", [0, 1])
def test_the_mlps_do_not_matter(model, layer):
    ids = repeated(12, 2)
    replay = {f"blocks.{layer}.mlp_out": np.zeros((len(ids), 64))}
    loss = losses(model.trace(ids, capture="logits", replay=replay), ids)[later(12, ids)]
    assert loss.max() < 1.65e-5


def test_one_head_in_layer_one_composes_with_the_previous_token_head_and_with_no_other():
    """K-composition as in Elhage et al. 2021, from the weights: `‖W_OV W_QKᵀ‖ / (‖W_OV‖ ‖W_QK‖)`."""
    with llmtrace.open("builtin:induction") as opened:
        w = opened.weights
        found = {}
        for first, second in [(0, 0), (0, 1), (1, 0), (1, 1)]:
            ov = w["blocks.0.attn.W_V"][first] @ w["blocks.0.attn.W_O"][first]
            qk = w["blocks.1.attn.W_Q"][second] @ w["blocks.1.attn.W_K"][second].T
            found[first, second] = np.linalg.norm(ov @ qk.T) / np.linalg.norm(ov) / np.linalg.norm(qk)
    assert found.pop((0, 0)) == pytest.approx(0.248, abs=1e-3)
    assert max(found.values()) < 1e-6


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_it_survives_sixteen_bit_weights(tmp_path, dtype):
    ids = repeated(12, 20)
    with llmtrace.open(handmade.write(tmp_path / dtype, dtype), backend="reference") as opened:
        assert opened.info.weights == dtype
        trace = opened.trace(ids, capture="logits")
    assert losses(trace, ids)[later(12, ids)].max() < 5e-5


def test_building_it_again_gives_the_shipped_bytes(tmp_path):
    handmade.write(tmp_path)
    shipped = embedded("induction")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(path.name for path in shipped.iterdir())
    for name in names:
        assert (tmp_path / name).read_bytes() == (shipped / name).read_bytes(), name
    assert sum((shipped / name).stat().st_size for name in names) < 1_000_000


def test_it_has_as_many_weights_as_it_says():
    assert sum(tensor.size for tensor in handmade.build()[1].values()) == 47_424


def test_another_type_is_refused_by_name(tmp_path):
    with pytest.raises(OptionError, match="float32, float16, bfloat16, not as 'int8'"):
        handmade.write(tmp_path / "x", "int8")
    assert not (tmp_path / "x").exists()


def test_the_stream_is_one_hot_at_each_depth(model):
    """What the heads write where: the token, the token before, and the token that follows."""
    ids = repeated(5, 2)
    trace = model.trace(ids, capture=["embed", "blocks.0.attn_out", "blocks.1.attn_out"])
    np.testing.assert_array_equal(trace["embed"].array[:, handmade.TOK].argmax(-1), ids)
    np.testing.assert_array_equal(trace["blocks.0.attn_out"].array[1:, handmade.PREV].argmax(-1), ids[:-1])
    follows = dict(pairwise(ids[:-1]))
    predicted = trace["blocks.1.attn_out"].array[6:, handmade.OUT].argmax(-1)
    np.testing.assert_array_equal(predicted, [follows[token] for token in ids[6:]])
