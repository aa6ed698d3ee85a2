"""Weights alone: nothing is run, and no signal compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from attrs import frozen

from llmtrace.comparison.document import tensors_document
from llmtrace.comparison.formats import Tensor, coarse
from llmtrace.comparison.record import ORDER, Difference, Verdict
from llmtrace.comparison.sides import Given, Side, opened
from llmtrace.comparison.specs import differences
from llmtrace.comparison.weights import Weighing
from llmtrace.errors import OptionError, without_weights
from llmtrace.schema.steps import needed
from llmtrace.settings import Options
from llmtrace.trace import ModelInfo


@frozen(eq=False)
class WeightCandidate:
    """One candidate's weights beside the reference's."""

    model: ModelInfo
    """Which model."""
    verdict: Verdict
    """Of all tensors, and of the specs."""
    headline: str
    """The verdict in one line."""
    tensors: tuple[Tensor, ...]
    """Every weight that both have, in dataflow order."""
    missing: tuple[str, ...] = ()
    """Weights that the reference's equations read and the candidate lacks."""
    spec: tuple[Difference, ...] = ()
    """What its own files say otherwise."""


@frozen(eq=False)
class WeightComparison:
    """Weights of one model in several files."""

    reference: ModelInfo
    """What is taken as right."""
    candidates: tuple[WeightCandidate, ...]
    """In the order given."""

    @property
    def verdict(self) -> Verdict:
        """The worst of the candidates'."""
        return max((each.verdict for each in self.candidates), key=ORDER.index)

    def to_json(self) -> dict[str, Any]:
        """The document that `llmtrace compare --weights-only --json` prints."""
        return tensors_document(self)


def compare_weights_only(
    reference: Given, *candidates: Given, options: Sequence[Options | None] = ()
) -> WeightComparison:
    """Hold candidates' weights to the reference's, tensor by tensor, dequantised; nothing is run.

    Raises `CapabilityError` for a side whose weights cannot be read, `ModelOpenError` and its kin for one that cannot be opened.
    """
    if not candidates:
        raise OptionError("A comparison needs a reference and at least one candidate.")
    settings = [*options, *[None] * (1 + len(candidates) - len(options))]
    with ExitStack() as stack:
        ours, *theirs = (
            stack.enter_context(opened(given, "exact", setting, check=False))
            for given, setting in zip((reference, *candidates), settings, strict=True)
        )
        for side in (ours, *theirs):
            if not side.equations.weights:
                raise without_weights(
                    f"The weights of {side.info.source} cannot be read by the backend {side.info.backend}"
                )
        return WeightComparison(ours.info, tuple(_candidate(ours, side) for side in theirs))


def _candidate(reference: Side, candidate: Side) -> WeightCandidate:
    ours, theirs = reference.equations, candidate.equations
    tensors = tuple(Weighing(reference, candidate).tensors())
    compared = {tensor.name for tensor in tensors}
    missing = tuple(weight.name for weight, _ in needed(ours.spec) if weight.name not in compared)
    spec = tuple(differences(ours.spec, theirs.spec))
    bad = [tensor for tensor in tensors if not tensor.explained]
    if bad or missing:
        verdict: Verdict = "diverges"
    else:
        verdict = "within_precision" if any(coarse(tensor.stored) for tensor in tensors) else "agrees"
    return WeightCandidate(candidate.info, verdict, _headline(tensors, bad, missing), tensors, missing, spec)


def _headline(tensors: Sequence[Tensor], bad: Sequence[Tensor], missing: Sequence[str]) -> str:
    if missing:
        return f"diverges: {missing[0]} is missing" + (f", and {len(missing) - 1} more" if len(missing) > 1 else "")
    if bad:
        what = (
            bad[0].what
            or f"off by {bad[0].relative_error:.1e}, where {bad[0].stored or 'its format'} costs {bad[0].expected:.1e}"
        )
        more = f" (and {len(bad) - 1} more of {len(tensors)})" if len(bad) > 1 else ""
        return f"diverges at {bad[0].name}: {what}{more}"
    kinds = Counter(tensor.stored for tensor in tensors if coarse(tensor.stored))
    if kinds:
        return f"within what {' and '.join(kind for kind, _ in kinds.most_common(2))} explains: {len(tensors)} tensors"
    return f"agrees: {len(tensors)} tensors"
