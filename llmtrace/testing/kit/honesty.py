"""Honesty: what a backend says of its signals is what they are."""

from __future__ import annotations

from collections.abc import Iterator

import ml_dtypes
import numpy as np

from llmtrace.model import Model
from llmtrace.schema.precision import BYTES, Precision
from llmtrace.testing.kit.base import Kit
from llmtrace.testing.kit.kinds import TYPES, are
from llmtrace.testing.kit.running import watch
from llmtrace.testing.model import TinyModel

ENOUGH = 64
"""So many numbers cannot all be rounded by chance as another type, or another computation, would round them."""
MODEST = 1e-3
"""The least share of the declared rounding that the worst of several signals must show. An honest one shows a tenth; float32 that is
declared as a 16-bit type, a ten-thousandth."""


class HonestyKit(Kit):
    """Provenance, precision, and what is missing."""

    def test_what_is_called_captured_was_computed_by_the_runtime(self, model: Model, tiny: TinyModel) -> None:
        """No signal that is offered as captured was derived: a product summed in float32 differs in its last bits from the equation's,
        which is evaluated in float64 and rounded once. (A runtime that sums in float64 cannot be told from the equations.)"""
        found = watch(model.session, tiny.tokens).arrays
        known = found | {"tokens": np.asarray(tiny.tokens), "positions": np.arange(len(tiny.tokens))}
        for site, array in found.items():
            step, offer = model.equations.steps[site], model.session.offers[site]
            if not step.equation.sums or offer.precision.accumulation == "float64" or array.size < ENOUGH:
                continue
            if step.equation.integer or any(name not in known for name in step.inputs):
                continue
            if any(weight.name not in model.equations.weights for weight in step.weights.values()):
                continue
            derived = model.equations.evaluate(site, model.equations.looking(known)).astype(array.dtype)
            assert not np.array_equal(array, derived), (
                f"{site} is offered as {offer.provenance.kind} and is its own equation, to the last bit: what is derived, the core derives"
            )

    def test_conversions_say_how(self, model: Model, tiny: TinyModel) -> None:
        """A signal is `captured`, or `converted` with its recipe; `derived` is the core's word."""
        for site, offer in model.session.offers.items():
            provenance = offer.provenance
            assert provenance.kind in ("captured", "converted"), f"{site} is offered as {provenance.kind}"
            assert provenance.kind == "captured" or provenance.detail, f"{site} is converted, and nothing says how"

    def test_rounding_is_as_declared(self, model: Model, tiny: TinyModel) -> None:
        """The numbers of a signal use the type that is declared as its storage: not a coarser one, and not a finer one either."""
        for site, array in watch(model.session, tiny.tokens).arrays.items():
            precision, equation = model.session.offers[site].precision, model.equations.steps[site].equation
            values = array[np.isfinite(array) & (array != 0)].astype(np.float64)
            if precision.storage not in BYTES or not equation.sums or equation.integer or values.size < ENOUGH:
                continue  # what is no sum of products (a look-up, a copy) may have few bits by nature
            for coarser in _coarser(precision):
                assert not are(coarser, values), (
                    f"{site} is declared as {precision.storage} and every number of it is a {np.dtype(coarser).name}"
                )
            if precision.storage in TYPES:
                assert are(TYPES[precision.storage], values), f"{site} holds numbers that are no {precision.storage}"

    def test_no_coarser_rounding_is_declared_than_there_is(self, model: Model, tiny: TinyModel) -> None:
        """Declared rounding shows: one of the signals that share a precision is off by a thousandth of what it explains, or more. A
        tolerance that is too wide hides faults. (Where sums are of float64, as the equations', nothing need show.)"""
        shown: dict[Precision, dict[str, float]] = {}
        for error in model.verify(tiny.tokens):
            precision = model.session.offers[error.site].precision
            if (
                model.equations.steps[error.site].equation.sums
                and precision.accumulation != "float64"
                and error.tolerance
            ):
                shown.setdefault(precision, {})[error.site] = error.relative_error / error.tolerance
        for precision, shares in shown.items():
            worst = max(shares, key=lambda site: shares[site])
            assert shares[worst] >= MODEST, (
                f"no signal shows the rounding that is declared for it, {precision}: the most, {shares[worst]:.1e} of it, is at {worst}"
            )

    def test_what_is_missing_is_accounted_for(self, model: Model, tiny: TinyModel) -> None:
        """Every site is offered, derived from what is, or lacking for a reason that names its kind; nothing is both."""
        for site in model.equations.steps:
            gap = model.session.gaps.get(site)
            assert not (gap and site in model.session.offers), f"{site} is offered and has a gap"
            assert gap is None or gap.reason.strip(), f"the gap at {site} has no reason"
        assert "logits" in model.session.offers, "the logits are not offered"


def _coarser(precision: Precision) -> Iterator[type]:
    if precision.storage in ("float64", "float32"):
        yield ml_dtypes.bfloat16  # first: most numbers of this type are of float16 too
        yield np.float16
    if precision.storage == "float64":
        yield np.float32
