"""Which values need one token's inputs only: the site table says it, and the equations themselves bear it out."""

import numpy as np
import pytest
from attrs import evolve

from llmtrace.schema.rows import LookingAtRows
from llmtrace.schema.sites import INPUTS
from llmtrace.schema.verify import token_axis
from llmtrace.spec import DynamicNtk, LongRope, Rotary
from tests.specs import GQA, SPECS, capture, equations, inputs, model, sequential

IDS = (1, 4, 2, 4, 9, 3)
ROWS = ((0,), (5,), (2, 3, 4), (3, 1), (2, 0, 2))
SCALED = {
    "rotary by length": model(sequential(evolve(GQA, rotary=Rotary(100.0, 6, scaling=DynamicNtk(2.0, 3))))),
    "rotary long and short": model(
        sequential(evolve(GQA, rotary=Rotary(100.0, 6, scaling=LongRope((1.0,) * 3, (2.0,) * 3, 3))))
    ),
}
ALL = SPECS | SCALED


def commutes(built, step, signals, cut):
    """Whether the equation, given some rows of the inputs in `cut` and the others whole, gives these rows of its value."""
    whole = built.evaluate(step.site, signals.__getitem__)
    for rows in ROWS:

        def look(name, rows=rows):
            axis = 0 if name in INPUTS else token_axis(built.steps[name])
            return np.take(signals[name], rows, axis) if name in cut else signals[name]

        try:
            found = built.evaluate(step.site, look)
        except (ValueError, IndexError):
            return False
        expected = np.take(whole, rows, token_axis(step))
        if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-12, atol=1e-13):
            return False
    return True


@pytest.mark.parametrize("name", ALL)
def test_an_input_is_declared_as_read_across_rows_if_and_only_if_it_is(name):
    built = equations(ALL[name])
    signals = capture(built, IDS) | inputs(IDS)
    for step in built.steps.values():
        if step.equation.opaque:
            continue
        assert set(step.across) <= set(step.inputs), step.site
        free = set(step.inputs) - set(step.across)
        assert not free or commutes(built, step, signals, free), step.site
        for read in step.across:
            assert not commutes(built, step, signals, free | {read}), (step.site, read)
        assert not step.across or not commutes(built, step, signals, set(step.inputs)), step.site


def test_what_is_read_across_rows_is_what_attention_reads():
    across = {step.site: step.across for step in equations(SPECS["sequential"]).steps.values() if step.across}
    at = "blocks.0.attn."
    assert [across[at + "scores"], across[at + "z"]] == [(at + "rot_q", at + "rot_k", "positions"), (at + "v",)]
    assert {site.rpartition(".")[2] for site in across} == {"scores", "z"}


@pytest.mark.parametrize("name", ALL)
def test_every_site_at_some_rows_is_these_rows_of_the_whole(name):
    """From every other signal: those that its equation reads across rows whole, the rest at the rows."""
    built = equations(ALL[name])
    signals = capture(built, IDS)
    rows = (4, 1)
    for site, step in built.steps.items():
        if step.equation.opaque:
            continue
        whole = {name: signals[name] for name in step.across if name in signals}
        part = {
            name: np.take(array, rows, token_axis(built.steps[name]))
            for name, array in signals.items()
            if name != site and name not in whole
        }
        found = LookingAtRows(built, whole | inputs(IDS), part, rows)(site)
        expected = np.take(signals[site], rows, token_axis(step))
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13, err_msg=site)


def test_a_span_of_rows_goes_past_a_signal_whose_rows_do_not_suffice():
    built = equations(SPECS["sequential"])
    at = "blocks.0.attn."
    part = [at + "pattern", at + "v", "blocks.0.ln1.out"]
    span = built.span(at + "z", [at + "k"], part)
    assert at + "v" in span.through and "blocks.0.ln1.out" in span.through  # both are needed at every row
    assert at + "pattern" in span.known and at + "pattern" not in span.through
