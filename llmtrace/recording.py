"""From a selection to a run. **Plan**: what is asked of the session, and what the core derives from that while the model runs.

Three observers meet here: `Deriving` adds the derived signals to what the session hands over, `Recorder` keeps everything, `Folding`
keeps one layer at a time for a fold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

import numpy as np
from attrs import frozen

from llmtrace.errors import SchemaViolationError, SignalUnavailableError
from llmtrace.protocol import Observer, TraceSession
from llmtrace.schema.evaluate import Equations, Signals
from llmtrace.schema.precision import BYTES, Precision
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import layer_of
from llmtrace.selection import Cut, Pick, Selection, cut, size
from llmtrace.trace import Provenance, Signal


@frozen
class Plan:
    """What one run hands over, site by site."""

    equations: Equations
    ids: tuple[int, ...]
    asked: Mapping[str, Cut]
    """What the session is asked for."""
    cuts: Mapping[str, Cut]
    """What the observer gets, in dataflow order."""
    derived: Mapping[str, tuple[str, ...]]
    """Sites that the core derives, with the signals that they rest on."""
    provenance: Mapping[str, Provenance]
    precision: Mapping[str, Precision]

    @property
    def bytes(self) -> int:
        """Bytes that the observer gets in all."""
        steps = self.equations.steps
        return sum(size(steps[s], c, len(self.ids), BYTES[self.precision[s].storage]) for s, c in self.cuts.items())


def plan(
    session: TraceSession, equations: Equations, selection: Selection, ids: tuple[int, ...], *, strict: bool = True
) -> Plan:
    """Decide for each selected site whether the session hands it out or the core derives it.

    With `strict`, a site that can be had neither way is an error if a pattern names it alone; wildcards take what there is.
    Raises `SignalUnavailableError` with the reason and the kind of gap.
    """
    chosen = selection.resolve(equations.steps)
    named = {pick.pattern for pick in selection.picks if not set(pick.pattern) & set("*{")}
    asked: dict[str, Cut] = {}
    cuts: dict[str, Cut] = {}
    derived: dict[str, tuple[str, ...]] = {}
    failures: dict[str, SignalUnavailableError] = {}
    for site, pick in chosen.items():
        wanted = cut(equations.steps[site], pick, len(ids))
        if site in session.offers:
            cuts[site] = wanted
            asked.setdefault(site, wanted)
            continue
        try:
            span = equations.derivable(site, session.offers)
        except SignalUnavailableError as error:
            failures[site] = _unavailable(session, site, error)
            continue
        cuts[site] = wanted
        rests = tuple(name for name in span.known if name not in ("tokens", "positions"))
        derived[site] = rests
    if failures and strict and (set(failures) & named or not cuts):
        raise next(iter(failures.values()))
    for rest in {name for rests in derived.values() for name in rests}:
        asked[rest] = cut(equations.steps[rest], Pick("**"), len(ids))
    provenance = {
        site: Provenance("derived", inputs=derived[site]) if site in derived else session.offers[site].provenance for site in cuts
    }
    precision = {
        site: _derived_precision(session, equations, site, derived[site]) if site in derived else session.offers[site].precision
        for site in cuts
    }
    return Plan(equations, ids, asked, cuts, derived, provenance, precision)


def _derived_precision(session: TraceSession, equations: Equations, site: str, rests: tuple[str, ...]) -> Precision:
    """Derived signals are computed in float64 and kept as float32, or as float64 where all that they rest on is."""
    if equations.steps[site].equation.name == "expert_index":
        return Precision("int64", "float64")
    wide = all(session.offers[name].dtype in ("float64", "int64") for name in rests)
    return Precision("float64" if wide else "float32", "float64")


def _unavailable(session: TraceSession, site: str, error: SignalUnavailableError) -> SignalUnavailableError:
    gap = session.gaps.get(site)
    if gap is None:
        return SignalUnavailableError(f"{error} The backend {session.info.backend} does not hand it out.", gap=error.gap)
    return SignalUnavailableError(
        f"{site} is not available from the backend {session.info.backend} ({gap.kind}): {gap.reason}. {error}", gap=gap.kind
    )


class Deriving:
    """Passes on what the session hands over, and adds what is derived from it, layer by layer.

    Holds the inputs of derivations that are still to come, and nothing else.
    """

    def __init__(self, plan: Plan, observer: Observer) -> None:
        self._plan = plan
        self._observer = observer
        self._seen: set[str] = set()
        self._held: dict[str, Array] = {}
        self._uses = Counter(name for rests in plan.derived.values() for name in rests)
        self._inputs = {"tokens": np.asarray(plan.ids), "positions": np.arange(len(plan.ids))}

    def signal(self, site: str, array: Array) -> None:
        """Check what came, pass it on as cut, and hold it if a derivation rests on it."""
        plan = self._plan
        if site not in plan.asked or site in self._seen:
            fault = "twice" if site in self._seen else "without being asked"
            raise SchemaViolationError(f"The session handed over {site} {fault}.")
        self._seen.add(site)
        step, asked = plan.equations.steps[site], plan.asked[site]
        expected = asked.shape(step.shape(len(plan.ids)))
        if array.shape != expected:
            raise SchemaViolationError(f"The session handed over {site} with shape {list(array.shape)} instead of {list(expected)}.")
        if self._uses[site]:
            self._held[site] = array.copy()
        if site in plan.cuts:
            wanted = plan.cuts[site]
            self._observer.signal(site, array if wanted == asked else wanted.apply(array))

    def layer_done(self, layer: int) -> None:
        """Derive what stands before and in this layer, then close it."""
        self._derive(layer)
        self._observer.layer_done(layer)

    def finish(self) -> None:
        """Derive what stands at the end, and check that everything came. Call once the run is over."""
        self._derive(None)
        if missing := [site for site in self._plan.asked if site not in self._seen]:
            raise SchemaViolationError(f"The session did not hand over {missing[0]}, which it offers.")

    def _derive(self, layer: int | None) -> None:
        for site, rests in self._plan.derived.items():
            here = layer_of(site)
            early = here is None and site in ("embed", "pos_embed")
            if (here != layer and not (early and layer == 0)) or (early and layer is None):
                continue
            known = self._inputs | {name: self._held[name] for name in rests}
            array = self._plan.equations.evaluate(site, self._plan.equations.looking(known))
            array = np.asarray(array, self._plan.precision[site].storage)
            array.flags.writeable = False
            self._observer.signal(site, self._plan.cuts[site].apply(array))
            self._seen.add(site)
            for name in rests:
                self._uses[name] -= 1
                if not self._uses[name]:
                    del self._held[name]


class Recorder:
    """Keeps a copy of everything that comes."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._arrays: dict[str, Array] = {}

    def signal(self, site: str, array: Array) -> None:
        """Copy."""
        kept = np.array(array, order="C")
        kept.flags.writeable = False
        self._arrays[site] = kept

    def layer_done(self, layer: int) -> None:
        """Nothing waits for the end of a layer."""

    def signals(self) -> dict[str, Signal]:
        """What was recorded, in dataflow order."""
        p = self._plan
        return {
            site: Signal(site, p.equations.steps[site].axes, self._arrays[site], p.provenance[site], p.precision[site], c)
            for site, c in p.cuts.items()
        }


class Fold(Protocol):
    """A computation over layers that needs the memory of one."""

    sites: Collection[str]
    """The sites that it reads, whole; those of a block are handed over together."""

    def layer(self, layer: int, signals: Signals) -> None:
        """One block, in order. The arrays may be kept: they are copies."""

    def finish(self, ends: Signals) -> None:
        """The sites that stand in no block: embeddings, final norm, logits."""


class Folding:
    """Gathers one layer's signals at a time and hands them to folds that share the pass."""

    def __init__(self, folds: Iterable[Fold]) -> None:
        self._folds = tuple(folds)
        self._ends: dict[str, Array] = {}
        self._layer: dict[str, Array] = {}

    def signal(self, site: str, array: Array) -> None:
        """Copy into the layer, or into the ends."""
        (self._ends if layer_of(site) is None else self._layer)[site] = np.array(array, order="C")

    def layer_done(self, layer: int) -> None:
        """Hand the layer over and forget it."""
        for fold in self._folds:
            fold.layer(layer, {site: self._layer[site] for site in fold.sites if site in self._layer})
        self._layer.clear()

    def finish(self) -> None:
        """Hand the ends over. Call once the run is over."""
        for fold in self._folds:
            fold.finish({site: self._ends[site] for site in fold.sites if site in self._ends})
