"""Of several explanations, the one that leaves least is the cause; of equals, the first; and none where none explains."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

from llmtrace.comparison.case import Case, Hypothesis, scalar_fit
from llmtrace.comparison.diagnosis import diagnose
from llmtrace.comparison.hypotheses import HYPOTHESES
from llmtrace.errors import UnknownSignalError
from tests.specs import SPECS, capture, equations

MODEL = equations(SPECS["sequential"])
IDS = (1, 4, 2, 9, 0, 3)
SIGNALS = capture(MODEL, IDS) | {"tokens": np.asarray(IDS), "positions": np.arange(len(IDS))}
SITE = "blocks.1.attn.v"


def case(found, tolerance=1e-6, site=SITE):
    return Case(site, SIGNALS | {site: found}, MODEL, None, MODEL.spec, tolerance)


def explaining(name, *factors):
    """A hypothesis that says that the site is so many times what it should be."""
    return Hypothesis(name, (), lambda case: ((f"{name} {factor}", factor * case.expected) for factor in factors))


def broken(case):
    yield "one thing", case.expected
    raise UnknownSignalError("no such thing here")


def test_what_leaves_least_is_the_cause():
    asked = [explaining("near", 1.5), explaining("there", 2.0), explaining("far", 3.0)]
    found = diagnose(case(2 * SIGNALS[SITE]), asked)
    assert (found.cause.name, found.cause.words) == ("there", "there 2.0")
    assert found.cause.before == pytest.approx(1.0) and found.cause.after == pytest.approx(0, abs=1e-12)


def test_of_two_that_are_both_within_rounding_the_first_is_the_cause():
    asked = [explaining("plain", 2.0 * (1 + 1e-7)), explaining("fitted", 2.0)]
    assert diagnose(case(2 * SIGNALS[SITE]), asked).cause.name == "plain"


def test_one_that_leaves_rounding_alone_is_better_than_one_that_nearly_does():
    asked = [explaining("nearly", 2.0 * (1 + 5e-6)), explaining("exactly", 2.0)]
    assert diagnose(case(2 * SIGNALS[SITE]), asked[:1]).cause.name == "nearly"
    assert diagnose(case(2 * SIGNALS[SITE]), asked).cause.name == "exactly"


def test_where_nothing_explains_there_is_no_cause_but_a_factor_that_fits_is_told():
    found = diagnose(case(2 * SIGNALS[SITE]), [explaining("near", 1.5), explaining("nearer", 1.8)])
    assert found.cause is None
    assert found.factor.startswith("2")


def test_only_hypotheses_about_the_site_are_asked_and_one_that_breaks_explains_nothing():
    asked = [Hypothesis("of other sites", ("attn.q",), explaining("", 2.0).tries), Hypothesis("broken", (), broken)]
    assert diagnose(case(2 * SIGNALS[SITE]), asked).cause is None
    assert [each.name for each in diagnose(case(2 * SIGNALS[SITE]), asked).tried] == ["broken"]


def test_what_was_tried_is_told_by_hypothesis_the_nearest_first():
    far = Hypothesis("another shape", (), lambda case: iter([("cut", case.expected[:1])]))
    found = diagnose(case(2 * SIGNALS[SITE]), [far, explaining("near", 3.0, 1.5, 1.0), explaining("nearer", 1.8)])
    assert [(each.name, each.count, each.words) for each in found.tried] == [
        ("nearer", 1, "nearer 1.8"),
        ("near", 3, "near 1.5"),
        ("another shape", 1, "cut"),
    ]
    assert [each.left for each in found.tried] == pytest.approx([0.2 / 1.8, 0.5 / 1.5, np.inf])


def test_a_factor_is_fitted_over_what_is_finite():
    assert scalar_fit(np.array([3.0, -np.inf, 6.0]), np.array([1.0, -np.inf, 2.0])) == pytest.approx(3.0)
    assert scalar_fit(np.ones(2), np.zeros(2)) is None and scalar_fit(np.ones(2), np.ones(3)) is None


@pytest.mark.parametrize(
    "name", [name if name in ("sinks", "experts") else pytest.param(name, marks=pytest.mark.slow) for name in SPECS]
)
def test_every_hypothesis_can_be_asked_about_every_site_of_every_model(name):
    """None raises anything but the errors that mean that it has nothing to say."""
    model = equations(SPECS[name])
    signals = capture(model, IDS) | {"tokens": np.asarray(IDS), "positions": np.arange(len(IDS))}
    for site, step in model.steps.items():
        if step.equation.opaque or step.equation.integer or not site.startswith(("blocks.0", "embed", "logits")):
            continue
        found = signals[site] * 1.25 + 0.1
        for own in (None, evolve(model)):
            asked = Case(site, signals | {site: found}, model, own, model.spec, 1e-9)
            assert sum(each.count for each in diagnose(asked, HYPOTHESES).tried) > 1
