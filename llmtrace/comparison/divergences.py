"""Which violated sites are faults, of what kind, and why."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence

from attrs import evolve

from llmtrace.comparison.beside import Beside
from llmtrace.comparison.case import Case, Hypothesis
from llmtrace.comparison.diagnosis import diagnose
from llmtrace.comparison.formats import MORE, Tensor, coarse, cost
from llmtrace.comparison.record import Cause, Divergence, Kind, SiteError
from llmtrace.comparison.shapes import said_by_its_file
from llmtrace.comparison.sides import Side
from llmtrace.comparison.weights import rows, with_own_weights
from llmtrace.schema.steps import Weight, any_layer, layer_of, steps
from llmtrace.schema.verify import NOT_FINITE, LocalError

OUTLIER, ENOUGH = 3.0, 6
"""How many times the median of its kind a site may be off whose weights cannot be read, and how many of its kind tell a median."""
OWN = "its-own-settings"
"""The hypothesis that takes the candidate's file at its word."""
TOLD = 2
"""Weights of one site that are told of."""


def divergences(
    reference: Side,
    candidate: Side,
    watched: Sequence[Beside],
    tensors: Sequence[Tensor],
    hypotheses: Sequence[Hypothesis],
) -> Iterator[Divergence]:
    """Each kind of site that is violated by more than its weights' format, in dataflow order, where it is so first."""
    by_name = {tensor.name: tensor for tensor in tensors}
    found: dict[str, Divergence] = {}
    layers: dict[str, set[int]] = {}
    harmful: set[str] = set()
    for site in reference.equations.steps:
        for number, beside in enumerate(watched):
            error = beside.errors.get(site)
            if error is None or error.status != "violated":
                continue
            kind = _kind(reference, error, beside, candidate, by_name)
            if kind == "format":
                continue
            alike = any_layer(site)
            if kind != "weights" or f"{site.rpartition('.')[0]}.out" not in beside.reordered:
                harmful.add(alike)
            layers.setdefault(alike, set()).update(() if (layer := layer_of(site)) is None else (layer,))
            if alike not in found:
                found[alike] = _divergence(error, beside.found[site], kind, number)
                found[alike] = _explained(found[alike], reference, candidate, beside, by_name, hypotheses)
    for alike, divergence in found.items():
        if alike not in harmful and divergence.cause is not None:  # what stands in another order meets again
            divergence = evolve(divergence, cause=evolve(divergence.cause, harmless=True))  # noqa: PLW2901
        yield evolve(divergence, layers=tuple(sorted(layers[alike])))


def _divergence(error: LocalError, shown: SiteError, kind: Kind, prompt: int) -> Divergence:
    return Divergence(
        error.site, error.span, kind, error.relative_error, error.worst_token_error, error.worst_token, error.tolerance,
        shown.own_error, shown.inherited_error, error.reason, prompt=prompt,
    )  # fmt: skip


def _explained(
    divergence: Divergence,
    reference: Side,
    candidate: Side,
    beside: Beside,
    tensors: Mapping[str, Tensor],
    hypotheses: Sequence[Hypothesis],
) -> Divergence:
    """With its cause: what was done to a weight, or the hypothesis that leaves least."""
    if divergence.kind == "weights":
        read = [tensors[name] for name in _weights(reference, divergence.span) if name in tensors]
        return evolve(divergence, cause=_of_tensors([each for each in read if not each.explained], divergence))
    evidence = beside.evidence.get(any_layer(divergence.site))
    if evidence is None or divergence.site not in evidence.signals:
        return divergence
    if evidence.error.unreadable:  # there is nothing to try explanations on
        theirs = steps(candidate.spec).get(divergence.site)
        words = said_by_its_file(reference.equations.steps[divergence.site], theirs, evidence.signals[divergence.site])
        cause = Cause(OWN, words, divergence.local_error, 0.0) if words else None
        return evolve(divergence, cause=cause)
    own = None if evidence.own is None else with_own_weights(reference.equations, candidate.equations)
    tolerance = divergence.tolerance
    case = Case(divergence.site, evidence.signals, reference.equations, own, candidate.spec, tolerance)
    found = diagnose(case, hypotheses)
    return evolve(divergence, cause=found.cause, tried=found.tried, factor=found.factor)


def _of_tensors(tensors: Sequence[Tensor], divergence: Divergence) -> Cause:
    """What was done to the weights that the site reads, the one that is furthest off first."""
    worst = sorted(tensors, key=lambda each: -each.relative_error)
    words = "; ".join(map(_done, worst[:TOLD])) + (f"; and {len(worst) - TOLD} more" if len(worst) > TOLD else "")
    after = divergence.own_error or 0.0
    return Cause("tensor", words, divergence.local_error, after if math.isfinite(after) else 0.0)


def _done(tensor: Tensor) -> str:
    if tensor.what:
        return f"{tensor.name}: {tensor.what}"
    if tensor.expected > 0:
        times = tensor.relative_error / tensor.expected
        return f"{tensor.name} is off by {times:.1f} times what {tensor.stored} explains ({tensor.relative_error:.1e})"
    return f"{tensor.name} differs ({tensor.relative_error:.1e}), in no way that is recognised"


def _weights(reference: Side, span: Sequence[str]) -> dict[str, Weight]:
    return {weight.name: weight for site in span for weight in reference.equations.steps[site].weights.values()}


def _kind(reference: Side, error: LocalError, beside: Beside, candidate: Side, tensors: Mapping[str, Tensor]) -> Kind:
    """Whether the candidate's computation, or its weights, are others."""
    names = _weights(reference, error.span)
    if not names:
        return "code"
    if (own := beside.owned.get(error.site)) is None:
        explained = error.relative_error <= min(_allowed(reference, candidate, names), _usual(error, beside))
        return "format" if explained else "unknown"
    if own.status == "violated":
        return "weights" if _not_finite(error, names, tensors) else "code"
    return "format" if all(tensors[name].explained for name in names if name in tensors) else "weights"


def _not_finite(error: LocalError, names: Mapping[str, Weight], tensors: Mapping[str, Tensor]) -> bool:
    """Whether a site holds NaN because a weight does."""
    read = [tensors[name] for name in names if name in tensors]
    return error.reason == NOT_FINITE and any(not math.isfinite(each.relative_error) for each in read)


def _allowed(reference: Side, candidate: Side, names: Mapping[str, Weight]) -> float:
    """What the formats that the candidate says its weights have explain, where they themselves cannot be read."""
    weights = reference.equations.weights
    kinds = [kind for kind in re.split(r"[,\s]+", candidate.info.weights) if kind and coarse(kind)]
    squares = [0.0]
    for kind in kinds:
        costs = [cost(kind, weights[name], rows(weight)) for name, weight in names.items() if name in weights]
        squares.append(sum(each**2 for each in costs if not math.isnan(each)))  # the errors of matrices in a row add up
    return MORE * math.sqrt(max(squares))


def _usual(error: LocalError, beside: Beside) -> float:
    """What the same site of the other blocks leads one to expect: an outlier among them is the suspect."""
    alike = any_layer(error.site)
    others = [each.relative_error for site, each in beside.errors.items() if any_layer(site) == alike]
    return OUTLIER * statistics.median(others) if len(others) >= ENOUGH else math.inf
