"""Which signals of an open model can be had. **Available**: handed out by the runtime, or derived from what it hands out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import frozen

from llmtrace.errors import SignalUnavailableError

if TYPE_CHECKING:
    from llmtrace.model import Model
    from llmtrace.recording import Plan


@frozen
class Availability:
    """How one site can be had."""

    kind: Literal["captured", "converted", "derived", "unavailable"]
    dtype: str
    """Type of its elements; empty where it cannot be had."""
    reason: str
    """The recipe of a conversion, what a derived one rests on, or why there is none."""


def availability(model: Model) -> dict[str, Availability]:
    """Every site of a model, in dataflow order. Nothing is run."""
    session, ready = model.session, model.plan(model.tokens([0]))
    found: dict[str, Availability] = {}
    for site in model.equations.steps:
        if site in session.offers:
            offer = session.offers[site]
            found[site] = Availability(offer.provenance.kind, offer.dtype, offer.provenance.detail)
        else:
            found[site] = _derived(model, site, ready)
    return found


def _derived(model: Model, site: str, ready: Plan) -> Availability:
    """One that the runtime does not hand out; `ready` is the plan of all sites but those on request."""
    if site not in ready.derived:
        try:
            ready = model.plan(model.tokens([0]), site)
        except SignalUnavailableError as error:
            return Availability("unavailable", "", str(error))
    return Availability("derived", ready.precision[site].storage, ", ".join(ready.derived[site]))
