"""What PyTorch's operators make of NumPy's arrays, against the same equations and bounds as NumPy's own."""

import numpy as np
import pytest
from attrs import evolve

from llmtrace.influence.alti import contributions
from llmtrace.influence.paths import Paths
from llmtrace.schema.arithmetic import NUMPY
from llmtrace.schema.attending import Attending
from llmtrace.spec import Attention
from llmtrace_torch.arithmetic import TorchArithmetic
from tests.core.test_threads import needs_a_pool, several, threads
from tests.schema.test_attending import KINDS, LENGTH, NAMES, check, inputs, wanted

__all__ = ["several"]


@pytest.mark.parametrize("size", [1.0, 8.0], ids=["small scores", "scores that need a shift"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [1, 1 << 20])
def test_scores_and_patterns_are_the_equations_within_float32(kind, size, block):
    a = KINDS[kind]
    given = inputs(a, size=size)
    check(a, *given, Attending(LENGTH, TorchArithmetic(block))(a, *given, wanted(a)))


def test_what_is_not_wanted_changes_nothing():
    a = KINDS["all at once"]
    given = inputs(a)
    every = Attending(LENGTH, TorchArithmetic())(a, *given, NAMES)
    for name in NAMES:
        (alone,) = Attending(LENGTH, TorchArithmetic())(a, *given, [name]).values()
        np.testing.assert_array_equal(alone, every[name])


def test_arrays_that_nobody_may_write_are_read_without_a_warning(recwarn):
    a = KINDS["one group"]
    given = inputs(a)
    for array in given[:2]:
        array.flags.writeable = False
    check(a, *given, Attending(LENGTH, TorchArithmetic())(a, *given, wanted(a)))
    assert not recwarn.list


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("window", [None, 7])
def test_contributions_of_tokens_are_numpys(dtype, window):
    random = np.random.default_rng(0)
    mass = np.tril(random.random((4, 50, 50))) * (1 - np.tri(50, k=-(window or 50)))
    given = (mass, random.normal(size=(50, 4, 8)), None, random.normal(size=(4, 8, 40)), np.zeros((50, 40)))
    through = Paths(*(each if each is None else each.astype(dtype) for each in given))
    base, y = random.normal(size=(2, 50, 40)).astype(dtype)
    attention = evolve(Attention(4, 4, 8, 8, 1.0), window=window)
    near = {"rtol": 2e-5, "atol": 2e-4} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-11}
    for found, expected in zip(
        contributions(through, base, y, attention, TorchArithmetic(4000)),
        contributions(through, base, y, attention, NUMPY),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, **near)


@needs_a_pool
def test_while_a_model_runs_numpy_keeps_to_one_thread(opened, several):
    class Threads:
        seen: list[int] = []

        def signal(self, site, array):
            self.seen.extend(threads().values())

        def layer_done(self, layer):
            pass

    opened("llama").stream([1, 2, 3], Threads(), "logits")
    assert Threads.seen == [1]


def test_a_model_lends_it(opened):
    assert isinstance(opened("llama").equations.arithmetic, TorchArithmetic)
