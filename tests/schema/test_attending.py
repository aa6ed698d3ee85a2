"""What is made in float32, against the equations in float64: within what float32 rounds, whatever the attention, and the same where it is not."""

import numpy as np
import pytest
from attrs import evolve

from llmtrace.schema import attention
from llmtrace.schema.arithmetic import NumPy
from llmtrace.schema.attending import Attending
from llmtrace.spec import Attention

LENGTH = 150
"""More than two blocks, and no multiple of one."""
UNIT = 2.0**-24
NAMES = ("scores", "pattern", "sink")
PLAIN = Attention(heads=6, kv_heads=3, d_head=8, d_value=8, scale=0.35)
SLOPES = tuple(2.0 ** -(i + 1) for i in range(6))
KINDS = {
    "causal": PLAIN,
    "one group": evolve(PLAIN, kv_heads=1),
    "no groups": evolve(PLAIN, kv_heads=6),
    "window of one": evolve(PLAIN, window=1),
    "window within a block": evolve(PLAIN, window=5),
    "window of a block": evolve(PLAIN, window=64),
    "window over blocks": evolve(PLAIN, window=100),
    "window beyond the prompt": evolve(PLAIN, window=1000),
    "soft cap": evolve(PLAIN, softcap=1.5),
    "ALiBi": evolve(PLAIN, slopes=SLOPES),
    "sinks": evolve(PLAIN, sinks=True),
    "all at once": evolve(PLAIN, window=70, softcap=2.0, slopes=SLOPES, sinks=True),
}


def inputs(a, length=LENGTH, size=1.0, seed=0):
    rng = np.random.default_rng(seed)
    q, k = (rng.normal(0, size, (length, heads, a.d_head)).astype(np.float32) for heads in (a.heads, a.kv_heads))
    return q, k, rng.normal(size=a.heads).astype(np.float32) if a.sinks else None


def by_equations(a, q, k, sinks):
    """The equations, of the same numbers, in float64."""
    wide = None if sinks is None else sinks.astype(np.float64)
    scores = attention.scores(a, q.astype(np.float64), k.astype(np.float64), np.arange(len(q)))
    found = {"scores": scores, "pattern": attention.pattern(a, scores, wide)}
    return found if wide is None else found | {"sink": attention.sink(a, scores, wide)}


def rounding(a, q, k, sinks):
    """What float32 may do to each score: its d_head products and as many sums, a scale, a cap and a bias ([head query key])."""
    q, k = np.abs(q).astype(np.float64), np.repeat(np.abs(k).astype(np.float64), a.heads // a.kv_heads, 1)
    size = abs(a.scale) * np.einsum("qhd,khd->hqk", q, k)
    far = np.abs(np.subtract.outer(np.arange(len(q)), np.arange(len(q)))) * max(a.slopes, default=0.0)
    cap = 4 * (a.softcap or 0.0)  # tanh and two roundings, of what is no larger than the cap
    return UNIT * ((a.d_head + 3) * size + 3 * far + cap)


def check(a, q, k, sinks, found):
    expected = by_equations(a, q, k, sinks)
    seen = attention.visible(np.arange(len(q)), a.window)
    error = rounding(a, q, k, sinks)
    np.testing.assert_array_equal(np.isneginf(found["scores"]), np.broadcast_to(~seen, found["scores"].shape))
    assert (np.abs(found["scores"][:, seen] - expected["scores"][:, seen]) <= error[:, seen]).all()
    # exp(s + e) / Σ exp(s + e): e twice, the shift, and three roundings and those of a sum (8 for the exponentials themselves)
    worst = np.where(seen, error + UNIT * np.abs(np.where(seen, expected["scores"], 0)) * 2, 0).max(-1)
    relative = np.expm1(2 * worst) + (len(q) + 8) * UNIT
    assert (found["pattern"][:, ~seen] == 0).all()
    assert (np.abs(found["pattern"] - expected["pattern"]) <= relative[..., None] * expected["pattern"] + 1e-37).all()
    if sinks is not None:
        assert (
            np.abs(found["sink"] - expected["sink"])
            <= (relative + 2 * UNIT * np.abs(sinks[:, None])) * expected["sink"] + 1e-37
        ).all()


def wanted(a):
    return NAMES if a.sinks else NAMES[:2]


@pytest.mark.parametrize("size", [1.0, 8.0], ids=["small scores", "scores that need a shift"])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_patterns_are_the_equations_within_float32(kind, size):
    a = KINDS[kind]
    given = inputs(a, size=size)
    check(a, *given, Attending(LENGTH)(a, *given, wanted(a)))


@pytest.mark.parametrize("length", [1, 2, 7, 63, 64, 65, 128, 129])
@pytest.mark.parametrize("window", [None, 3, 64])
def test_so_they_are_at_every_length(length, window):
    a = evolve(PLAIN, window=window)
    given = inputs(a, length)
    check(a, *given, Attending(length)(a, *given, wanted(a)))


@pytest.mark.parametrize("work", [1, 500, 20_000])
def test_so_they_are_however_little_is_worked_on_at_once(work):
    a = KINDS["all at once"]
    given = inputs(a)
    check(a, *given, Attending(LENGTH, NumPy(work))(a, *given, wanted(a)))


def test_what_is_not_wanted_changes_nothing():
    a = KINDS["all at once"]
    given = inputs(a)
    every = Attending(LENGTH)(a, *given, NAMES)
    for name in NAMES:
        (alone,) = Attending(LENGTH)(a, *given, [name]).values()
        np.testing.assert_array_equal(alone, every[name])


def test_what_one_attention_left_does_not_show_in_the_next():
    made = Attending(LENGTH)
    kinds = [*KINDS.values(), PLAIN, evolve(PLAIN, window=3), PLAIN, evolve(PLAIN, heads=12), evolve(PLAIN, window=7)]
    for seed, a in enumerate(kinds):
        given = inputs(a, seed=seed)
        check(a, *given, made(a, *given, wanted(a)))


def test_memory_that_nobody_holds_serves_the_next_attention():
    made = Attending(LENGTH)
    places = {made(PLAIN, *inputs(PLAIN, seed=seed), ["pattern"])["pattern"].ctypes.data for seed in range(4)}
    assert len(places) == 1


def test_what_somebody_holds_stays_as_it_is():
    made = Attending(LENGTH)
    held = made(PLAIN, *inputs(PLAIN), ["pattern"])["pattern"][1:, :3]
    copy = held.copy()
    other = made(PLAIN, *inputs(PLAIN, seed=1), ["pattern"])["pattern"]
    assert not np.shares_memory(held, other)
    np.testing.assert_array_equal(held, copy)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e20, 3e38])
@pytest.mark.parametrize("which", [0, 1])
def test_numbers_that_float32_cannot_hold_the_scores_of_are_left_to_the_equations(which, value):
    given = inputs(PLAIN)
    given[which][3, 1, 2] = value
    with np.errstate(all="ignore"):
        assert Attending(LENGTH)(PLAIN, *given, wanted(PLAIN)) == {}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_so_are_sinks_that_are_not_finite(value):
    a = KINDS["sinks"]
    q, k, sinks = inputs(a)
    sinks[2] = value
    assert Attending(LENGTH)(a, q, k, sinks, NAMES) == {}


def test_a_row_of_equal_scores_is_shared_evenly():
    q = np.ones((LENGTH, 6, 8), np.float32)
    pattern = Attending(LENGTH)(PLAIN, q, np.ones((LENGTH, 3, 8), np.float32), None, ["pattern"])["pattern"]
    even = np.tri(LENGTH) / np.arange(1, LENGTH + 1)[:, None]
    np.testing.assert_allclose(pattern, np.broadcast_to(even, pattern.shape), rtol=1e-6)
