"""Verifying while a model runs gives the verdicts of verifying what was recorded, with the memory of one layer."""

import attrs
import ml_dtypes  # noqa: F401  (makes NumPy know bfloat16)
import numpy as np
import pytest

from llmtrace.checking import Checking
from llmtrace.model import Model
from tests.specs import SPECS, WeighedSession, equations, random_weights

IDS = [1, 4, 2, 4, 9, 3]


def model(name, dtype="float32", without=()):
    built = equations(SPECS[name])
    offers = [site for site in built.steps if not site.endswith(tuple(without) or "\0")]
    return Model(WeighedSession(built, offers, dtype))


@pytest.mark.parametrize("name", [name for name in SPECS if "mixer" not in name])
@pytest.mark.parametrize(("dtype", "without"), [("float32", ()), ("bfloat16", ("scores", "scale", "normalized"))])
def test_the_verdicts_are_those_of_a_recorded_trace(name, dtype, without):
    one = model(name, dtype, without)
    streamed = {e.site: e for e in one.verify(IDS)}
    recorded = {e.site: e for e in one.trace(IDS).verify()}
    assert list(streamed) == list(recorded)
    for site, verdict in streamed.items():
        assert verdict.status == recorded[site].status, site
        assert verdict.tolerance == pytest.approx(recorded[site].tolerance, rel=1e-6), site


def test_others_can_judge():
    one = model("sequential")
    weights = random_weights(one.spec)
    weights["blocks.1.attn.W_O"] = weights["blocks.1.attn.W_O"] * 1.01
    theirs = Checking(one.plan(one.tokens(IDS)), attrs.evolve(one.equations, weights=weights))
    ours = Checking(one.plan(one.tokens(IDS)))
    one.fold(IDS, [theirs, ours])
    assert [e.site for e in theirs.errors() if e.status == "violated"] == ["blocks.1.attn.out"]
    assert not [e for e in ours.errors() if e.status == "violated"]
    assert np.isfinite([e.tolerance for e in ours.errors()]).all()
