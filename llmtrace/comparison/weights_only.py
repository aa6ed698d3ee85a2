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
from llmtrace.comparison.sides import Given, Side, named, opened
from llmtrace.comparison.sizes import check_same
from llmtrace.comparison.specs import differences
from llmtrace.comparison.weights import Weighing
from llmtrace.comparison.words import explaining, occurring, saying
from llmtrace.errors import OptionError, without_weights
from llmtrace.progress import Progress, nothing_said
from llmtrace.schema.steps import any_layer, needed
from llmtrace.settings import Options
from llmtrace.trace import ModelInfo
from llmtrace.words import counted

ALIKE = 3
"""Weights of one kind in one format, at least, beside which another is said to be stored otherwise."""


@frozen(eq=False, repr=False)
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
    """What its own files say otherwise: nothing that weights show."""
    notes: tuple[str, ...] = ()
    """What a reader should know: a tensor stored otherwise than the others of its kind, whose weights were read for a trace."""

    @property
    def passed(self) -> bool:
        """Whether it does not diverge."""
        return self.verdict != "diverges"

    def __repr__(self) -> str:
        """`<WeightCandidate model.gguf: within what Q4_1 explains: 273 tensors>`"""
        return f"<WeightCandidate {self}>"

    def __str__(self) -> str:
        """Its name and the verdict in one line."""
        return f"{self.model.source}: {self.headline}"


@frozen(eq=False, repr=False)
class WeightComparison:
    """Weights of one model in several files."""

    reference: ModelInfo
    """What is taken as right."""
    candidates: tuple[WeightCandidate, ...]
    """In the order given."""
    notes: tuple[str, ...] = ()
    """What a reader should know of the reference."""

    @property
    def verdict(self) -> Verdict:
        """The worst of the candidates'."""
        return max((each.verdict for each in self.candidates), key=ORDER.index)

    @property
    def passed(self) -> bool:
        """Whether no candidate diverges: what the exit code says."""
        return all(each.passed for each in self.candidates)

    def __repr__(self) -> str:
        """`<WeightComparison with checkpoint: model.gguf: agrees: 273 tensors>`"""
        return f"<WeightComparison with {self.reference.source}: {'; '.join(map(str, self.candidates))}>"

    def __str__(self) -> str:
        """A line for each candidate: its name and its verdict."""
        return "\n".join(map(str, self.candidates))

    def to_json(self) -> dict[str, Any]:
        """The document that `llmtrace compare --weights-only --json` prints."""
        return tensors_document(self)


def compare_weights_only(
    reference: Given,
    *candidates: Given,
    options: Sequence[Options | None] = (),
    progress: Progress = nothing_said,
) -> WeightComparison:
    """Hold candidates' weights to the reference's, tensor by tensor, dequantised; nothing is run. A saved trace stands for its model.

    Raises `CapabilityError` for a side whose weights cannot be read, `UnsupportedModelError` for models that are not one by their sizes,
    `ModelOpenError` and its kin for one that cannot be opened.
    """
    if not candidates:
        raise OptionError("A comparison needs a reference and at least one candidate.")
    settings = [*options, *[None] * (1 + len(candidates) - len(options))]
    with ExitStack() as stack:
        sides: list[Side] = []
        for given, setting in zip((reference, *candidates), settings, strict=True):
            progress(f"opening {named(given)}")
            sides.append(stack.enter_context(opened(given, "exact", setting, check=False)))
        for side in sides:
            if not side.equations.weights:
                raise without_weights(
                    f"The weights of {side.info.source} cannot be read by the backend {side.info.backend}"
                )
        ours, *theirs = sides
        found = []
        for side in theirs:
            check_same(ours, side)
            progress(f"{side.name}: the weights")
            found.append(_candidate(ours, side))
        return WeightComparison(ours.info, tuple(found), _borrowed(ours))


def _candidate(reference: Side, candidate: Side) -> WeightCandidate:
    ours, theirs = reference.equations, candidate.equations
    tensors = tuple(Weighing(reference, candidate).tensors())
    compared = {tensor.name for tensor in tensors}
    missing = tuple(weight.name for weight, _ in needed(ours.spec) if weight.name not in compared)
    spec = tuple(differences(ours.spec, theirs.spec, (reference.info.weights, candidate.info.weights)))
    bad = [tensor for tensor in tensors if not tensor.explained]
    if bad or missing:
        verdict: Verdict = "diverges"
    else:
        verdict = "within_precision" if any(map(_off, tensors)) else "agrees"
    headline = _headline(tensors, bad, missing)
    if spec:
        headline += f"; but {saying(spec)}"
    notes = (*candidate.info.notes, *_borrowed(candidate), *strays(tensors))
    return WeightCandidate(candidate.info, verdict, headline, tensors, missing, spec, notes)


def _borrowed(side: Side) -> tuple[str, ...]:
    """Whose weights were read in place of a saved trace's, which holds none."""
    if side.trace is None:
        return ()
    whose = side.trace.model.source
    return (
        f"A saved trace holds no weights: those of {whose}, which it was recorded of, were read in its place.",
        *side.notes,
    )


def strays(tensors: Sequence[Tensor]) -> list[str]:
    """Each weight that alone of its kind is stored in another format, in words."""
    kinds: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault(any_layer(tensor.name), []).append(tensor)
    found = []
    for alike in kinds.values():
        (usual, most), *others = Counter(tensor.stored for tensor in alike).most_common()
        if most >= ALIKE and len(alike) - most == 1:
            (alone,) = [tensor for tensor in alike if tensor.stored == others[0][0]]
            found.append(f"{alone.name} is stored in {alone.stored}, the {most} others of its kind in {usual}.")
    return found


def _off(tensor: Tensor) -> bool:
    """Whether a weight is in a coarse type, and not the reference's own numbers."""
    return coarse(tensor.stored) and tensor.relative_error != 0


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
    count = counted(len(tensors), "tensor")
    if kinds := occurring(tensor.stored for tensor in tensors if _off(tensor)):
        return f"within what {explaining(kinds)}: {count}"
    return f"agrees: {count}"
