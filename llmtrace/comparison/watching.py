"""One prompt on both sides: the reference's signals, and the candidate's as they are held to its equations."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from attrs import frozen

from llmtrace.comparison.beside import Beside, offered
from llmtrace.comparison.judging import SINGLE, coarse
from llmtrace.comparison.run import Run
from llmtrace.comparison.sides import Side
from llmtrace.comparison.weights import Weighing, with_own_weights
from llmtrace.model import Model
from llmtrace.schema.evaluate import Signals
from llmtrace.schema.precision import ROUNDOFF, Precision
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import layer_of
from llmtrace.selection import select
from llmtrace.trace import Trace


@frozen(eq=False)
class Watched:
    """What became of a candidate's run."""

    run: Run
    """The reference's."""
    beside: Beside
    """The verdicts."""
    logits: Array | None
    """The candidate's, whole."""
    coarse: tuple[str, ...]
    """The types coarser than float32 in which it holds signals, or multiplies them."""

    @property
    def kept(self) -> dict[str, Array]:
        """What was kept of the candidate's signals: the logits, and the first of each kind that its computation gets wrong."""
        found = {each.error.site: each.signals[each.error.site] for each in self.beside.evidence.values()}
        return found if self.logits is None else found | {"logits": self.logits}


def watch(reference: Side, candidate: Side, run: Run, weighing: Weighing) -> Watched:
    """Run the candidate on the reference's ids, or read what it recorded; weights are compared while they are at hand."""
    if candidate.model is not None:
        return _run(reference, candidate, candidate.model, run, weighing)
    if candidate.trace is None:
        raise ValueError("A side is a model or a trace.")
    return _read(reference, candidate, candidate.trace, run, weighing)


def _run(reference: Side, candidate: Side, model: Model, run: Run, weighing: Weighing) -> Watched:
    sites = offered(model.session, reference.equations)
    plan = model.plan(model.tokens(list(run.ids)), select(*sites))
    precision = {site: plan.precision[site] for site in plan.cuts}
    beside = _beside(reference, candidate, run, precision, weighing)
    keep = _Kept()
    model.fold(list(run.ids), [beside, keep])
    return Watched(run, beside, keep.logits, _types(precision))


def _read(reference: Side, candidate: Side, trace: Trace, run: Run, weighing: Weighing) -> Watched:
    whole = {
        site: signal
        for site, signal in trace.signals.items()
        if not signal.part and signal.provenance.kind != "derived" and site in reference.equations.steps
    }
    precision = {site: signal.precision for site, signal in whole.items()}
    beside = _beside(reference, candidate, run, precision, weighing)
    blocks: dict[int, dict[str, Array]] = {}
    ends: dict[str, Array] = {}
    for site, signal in whole.items():
        layer = layer_of(site)
        (ends if layer is None else blocks.setdefault(layer, {}))[site] = np.asarray(signal.array)
    with np.errstate(invalid="ignore", over="ignore"):
        for layer in sorted(blocks):
            beside.layer(layer, ends | blocks[layer])
        beside.finish(ends)
    return Watched(run, beside, ends.get("logits"), _types(precision))


def _beside(
    reference: Side, candidate: Side, run: Run, precision: Mapping[str, Precision], weighing: Weighing
) -> Beside:
    own = with_own_weights(reference.equations, candidate.equations) if candidate.equations.weights else None
    return Beside(reference.equations, own, run, precision, weighing)


def _types(precision: Mapping[str, Precision]) -> tuple[str, ...]:
    """The coarse types among them."""
    named = [name for each in precision.values() if coarse(each) for name in (each.storage, each.operands)]
    return tuple(dict.fromkeys(name for name in named if ROUNDOFF.get(name, 0.0) > SINGLE))


class _Kept:
    """A fold that keeps the logits."""

    sites: Collection[str] = ("logits",)

    def __init__(self) -> None:
        self.logits: Array | None = None

    def layer(self, layer: int, signals: Signals) -> None:
        """Nothing of a block is kept."""

    def finish(self, ends: Signals) -> None:
        """Keep them."""
        self.logits = ends.get("logits")
