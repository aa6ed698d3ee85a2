"""Faults of the reference. It is one run, on one runtime, and may itself compute something else than its spec and weights say; a candidate that
obeys them then differs from it without a fault of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from llmtrace.checking import Around
from llmtrace.comparison.record import Divergence
from llmtrace.comparison.run import Run
from llmtrace.schema.evaluate import Equations
from llmtrace.schema.steps import any_layer, layer_of
from llmtrace.schema.verify import LocalError, verify

SUSPECT = 1e-3
"""Relative error of the logits from which on a candidate without a fault, in float32, makes the reference suspect."""


def beside(reference: Equations, runs: Sequence[Run], divergences: Sequence[Divergence]) -> Iterator[str]:
    """Of a candidate's divergent sites, those where the reference violates its own equations, in words."""
    for divergence in divergences:
        for error in _violated(reference, runs[divergence.prompt], [divergence.site]):
            yield (
                f"{error.site}: the reference itself is off there by {error.relative_error:.1e}, where rounding explains "
                f"{error.tolerance:.1e}: the fault may be its own."
            )


def alone(reference: Equations, run: Run) -> list[Divergence]:
    """Where the reference violates its own equations, each kind of site once, in dataflow order."""
    found: dict[str, list[LocalError]] = {}
    for error in _violated(reference, run, list(run.precision)):
        found.setdefault(any_layer(error.site), []).append(error)
    return [_divergence(errors, run) for errors in found.values()]


def _divergence(errors: Sequence[LocalError], run: Run) -> Divergence:
    first = errors[0]
    reason = "the reference itself does not compute there what its spec and weights say; the candidate does"
    layers = tuple(layer for each in errors if (layer := layer_of(each.site)) is not None)
    return Divergence(
        first.site, first.span, "reference", first.relative_error, first.worst_token_error, first.worst_token, first.tolerance, None, None,
        "; ".join(filter(None, [first.reason, reason])), layers, run.number,
    )  # fmt: skip


def _violated(reference: Equations, run: Run, sites: Collection[str]) -> Iterator[LocalError]:
    wanted = [site for site in sites if site in run.precision]
    captured = Around(run.ids)(run.signals)
    yield from (each for each in verify(reference, captured, run.precision, wanted) if each.status == "violated")
