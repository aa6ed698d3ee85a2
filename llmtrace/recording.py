"""From a selection to a run. **Plan**: what is asked of the session, and what the core derives from that while the model runs.

Three observers meet: `Deriving`, in a file of its own, adds the derived signals to what the session hands over, `Recorder` keeps
everything, `Folding` keeps one layer at a time for a fold.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from attrs import evolve, frozen

from llmtrace.edits import Change, Edit, changes
from llmtrace.errors import CapabilityError, EditNotSupportedError, SignalUnavailableError
from llmtrace.protocol import Request, SupportsEdits, SupportsKeeping, SupportsReplay, TraceSession
from llmtrace.schema.attending import attends
from llmtrace.schema.evaluate import Equations, Signals
from llmtrace.schema.precision import BYTES, Precision
from llmtrace.schema.sites import INPUTS, Array
from llmtrace.schema.steps import any_layer, layer_of
from llmtrace.selection import Cut, Pick, Selection, cut, size
from llmtrace.trace import REPLAYED, Provenance, Signal


@frozen
class Plan:
    """What one run hands over, site by site."""

    equations: Equations
    """The model's spec and weights."""
    ids: tuple[int, ...]
    """The prompt."""
    asked: Mapping[str, Cut]
    """What the session is asked for."""
    cuts: Mapping[str, Cut]
    """What the observer gets, in dataflow order."""
    derived: Mapping[str, tuple[str, ...]]
    """Sites that the core derives, with the signals that they rest on."""
    provenance: Mapping[str, Provenance]
    """Of what the observer gets."""
    precision: Mapping[str, Precision]
    """Of what is asked for and of what is derived."""
    dtypes: Mapping[str, str]
    """Types of the arrays, of the same sites."""
    edits: Mapping[str, tuple[Change, ...]] = {}
    """What is changed in flight, by site."""
    replay: Mapping[str, Array] = {}
    """What is taken as given."""
    backend: str = ""
    """Whose session it is, for messages."""
    shapes: Mapping[str, tuple[int, ...]] = {}
    """Of what is asked for, for who checks each; may be left out."""
    lasting: frozenset[str] = frozenset()
    """Sites whose arrays stay as they are: whoever keeps them need not copy."""
    rowwise: frozenset[str] = frozenset()
    """Derived sites of which each token's part follows from that token's parts of what they rest on."""

    @property
    def request(self) -> Request:
        """What the session is asked for."""
        return Request(self.ids, self.asked, self.replay, self.edits)

    @property
    def bytes(self) -> int:
        """Bytes that the observer gets in all."""
        steps = self.equations.steps
        return sum(size(steps[s], c, len(self.ids), BYTES[self.dtypes[s]]) for s, c in self.cuts.items())


def plan(
    session: TraceSession,
    equations: Equations,
    selection: Selection,
    ids: tuple[int, ...],
    edits: Sequence[Edit] = (),
    replay: Mapping[str, Array] = {},
) -> Plan:
    """Decide for each selected site whether the session hands it out or the core derives it.

    A site that can be had neither way is an error if a pattern names it alone; wildcards take what there is, but not nothing. What is
    edited or replayed obeys no equation, so nothing is derived through it. Raises `SignalUnavailableError` with the reason and the
    kind of gap, `CapabilityError` and `EditNotSupportedError` where the session cannot replay or edit.
    """
    if replay and not isinstance(session, SupportsReplay):
        raise CapabilityError(
            f"The backend {session.info.backend} cannot take signals as given; the reference backend can."
        )
    changed = changes(edits, equations.steps, len(ids)) if edits else {}
    _check_editable(session, changed)
    equations = evolve(equations, given=frozenset([*changed, *replay])) if changed or replay else equations
    chosen = selection.resolve(equations.steps)
    asked: dict[str, Cut] = {}
    cuts: dict[str, Cut] = {}
    derived: dict[str, tuple[str, ...]] = {}
    failures: dict[str, SignalUnavailableError] = {}
    rowwise: set[str] = set()
    for site, pick in chosen.items():
        wanted = cut(equations.steps[site], pick, len(ids))
        if site in session.offers:
            cuts[site] = wanted
            asked[site] = wanted
            continue
        try:
            span = equations.derivable(site, session.offers)
        except SignalUnavailableError as error:
            failures[site] = _unavailable(session, site, error)
            continue
        cuts[site] = wanted
        rests = tuple(name for name in span.known if name not in INPUTS)
        derived[site] = rests
        if not any(equations.steps[name].across for name in span.through):
            rowwise.add(site)
    for site, failure in failures.items():
        if not chosen[site].wild or not cuts:
            raise failure
    for rest in {name for rests in derived.values() for name in rests}:
        asked[rest] = cut(equations.steps[rest], Pick("**"), len(ids))
    provenance = {
        site: Provenance("derived", inputs=derived[site]) if site in derived else session.offers[site].provenance
        for site in cuts
    }
    provenance |= {site: REPLAYED for site in replay if site in cuts}
    words = _words(edits, equations)
    provenance |= {site: Provenance("converted", f"edited: {words[site]}") for site in changed if site in cuts}
    precision = {site: session.offers[site].precision for site in asked}
    precision |= {site: _derived_precision(session, equations, site, rests) for site, rests in derived.items()}
    dtypes = {site: session.offers[site].dtype for site in asked} | {site: precision[site].storage for site in derived}
    lasting = frozenset(session.lasting if isinstance(session, SupportsKeeping) and not changed else ()) | frozenset(
        derived
    )
    shapes = {site: each.shape(equations.steps[site].shape(len(ids))) for site, each in asked.items()}
    return Plan(
        equations, ids, asked, cuts, derived, provenance, precision, dtypes, changed, replay, session.info.backend, shapes, lasting,
        frozenset(rowwise),
    )  # fmt: skip


def _check_editable(session: TraceSession, changed: Collection[str]) -> None:
    editable = session.editable if isinstance(session, SupportsEdits) else ()
    if site := next((site for site in changed if site not in editable), None):
        gap = session.gaps.get(site)
        why = f" It is not handed out either: {gap.reason}." if gap else ""
        raise EditNotSupportedError(
            f"{site} cannot be edited on the backend {session.info.backend}, which edits {_some(editable)}.{why}{_instead(site, editable)} The "
            "reference backend edits every site of a checkpoint directory (config.json and safetensors): "
            'llmtrace.open(directory, backend="reference").'
        )


def _instead(site: str, editable: Collection[str]) -> str:
    """Where a site can be edited in another's place."""
    at, _, name = site.rpartition(".")
    if name == "result" and f"{at}.z_post" in editable:
        return f" Edit {at}.z_post, with the same heads, instead: each head's result is a product of its part of that."
    if name == "scores" and f"{at}.pattern" in editable:
        return f" Edit {at}.pattern instead: an edge that is scaled by 0 there is cut, and the rest of its row can be scaled to make one again."
    return ""


def _some(editable: Collection[str]) -> str:
    kinds = list(dict.fromkeys(any_layer(site) for site in editable))
    return ", ".join(kinds) if kinds else "nothing"


def _words(edits: Sequence[Edit], equations: Equations) -> dict[str, str]:
    """The edits that touch each site that one touches."""
    found: dict[str, list[str]] = {}
    for edit in edits:
        for site in Selection((edit.pick,)).resolve(equations.steps):
            found.setdefault(site, []).append(str(edit))
    return {site: ", ".join(said) for site, said in found.items()}


def _derived_precision(session: TraceSession, equations: Equations, site: str, rests: tuple[str, ...]) -> Precision:
    """Derived signals are computed in float64 and kept as float32, or as float64 where all that they rest on is.

    What queries and keys of at most float32 give, attention patterns above all, is computed in float32: it is one large array a head.
    """
    step = equations.steps[site]
    if step.equation.integer:
        return Precision("int64", "float64")
    wide = all(session.offers[name].dtype in ("float64", "int64") for name in rests)
    if wide:
        return Precision("float64", "float64")
    return Precision("float32", "float32" if attends(step, rests) else "float64")


def _unavailable(session: TraceSession, site: str, error: SignalUnavailableError) -> SignalUnavailableError:
    gap = session.gaps.get(site)
    if gap is None:
        return SignalUnavailableError(
            f"{error} The backend {session.info.backend} does not hand it out ({error.gap}).", gap=error.gap
        )
    return SignalUnavailableError(
        f"{site} is not available from the backend {session.info.backend} ({gap.kind}): {gap.reason}. {error}",
        gap=gap.kind,
    )


def keep(array: Array, lasts: bool) -> Array:
    """An array to hold on to, read-only: itself where it lasts, unless that would hold much memory for little; else a copy."""
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    kept = array.view() if lasts and 2 * array.nbytes >= owner.nbytes else np.array(array, order="C")
    kept.flags.writeable = False
    return kept


class Recorder:
    """Keeps everything that comes: a copy, or the array itself where it lasts."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._arrays: dict[str, Array] = {}

    def signal(self, site: str, array: Array) -> None:
        """Keep it."""
        self._arrays[site] = keep(array, site in self.plan.lasting)

    def layer_done(self, layer: int) -> None:
        """Nothing waits for the end of a layer."""

    def signals(self) -> dict[str, Signal]:
        """What was recorded, in dataflow order."""
        p = self.plan
        return {
            site: Signal(
                site, p.equations.steps[site].axes, self._arrays[site], p.provenance[site], p.precision[site], c
            )
            for site, c in p.cuts.items()
        }


class Fold(Protocol):
    """A computation over layers that needs the memory of one."""

    sites: Collection[str]
    """The sites that it reads, whole, by full name; those of a block are handed over together."""

    def layer(self, layer: int, signals: Signals) -> None:
        """One block, in order, and the embeddings with each. The arrays may be kept, and are read-only: folds share them."""

    def finish(self, ends: Signals) -> None:
        """The sites that stand in no block: embeddings, final norm, logits."""


class Folding:
    """Gathers one layer's signals at a time and hands them to folds that share the pass."""

    def __init__(self, folds: Iterable[Fold], lasting: Collection[str] = ()) -> None:
        self._folds = tuple(folds)
        self._lasting = lasting
        self._ends: dict[str, Array] = {}
        self._layer: dict[str, Array] = {}

    def signal(self, site: str, array: Array) -> None:
        """Keep it with the layer, or with the ends; read-only, since a fold that wrote here would write into what the others see."""
        kept = keep(array, site in self._lasting)
        (self._ends if layer_of(site) is None else self._layer)[site] = kept

    @np.errstate(invalid="ignore", over="ignore")  # as in `Deriving`
    def layer_done(self, layer: int) -> None:
        """Hand the layer over and forget it."""
        seen = self._ends | self._layer
        for fold in self._folds:
            fold.layer(layer, {site: seen[site] for site in fold.sites if site in seen})
        self._layer.clear()

    @np.errstate(invalid="ignore", over="ignore")  # as in `Deriving`
    def finish(self) -> None:
        """Hand the ends over. Call once the run is over."""
        for fold in self._folds:
            fold.finish({site: self._ends[site] for site in fold.sites if site in self._ends})
