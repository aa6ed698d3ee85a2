"""Deriving while the model runs: what the runtime does not hand out follows from what it does, with the memory of one layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np
from attrs import evolve

from llmtrace.errors import SchemaViolationError
from llmtrace.protocol import Observer
from llmtrace.recording import Plan
from llmtrace.schema.attending import Attending
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import stage_of

EMBEDDINGS = -1
"""The stage of a run before block 0; block L is stage L, and the end comes after the last."""


class Deriving:
    """Passes on what the session hands over, and adds what is derived from it, layer by layer.

    Holds the inputs of derivations that are still to come, and nothing else. Holds the session to the protocol too: each signal
    once, in layer order, of the shape and type that were promised. Raises `SchemaViolationError`.
    """

    def __init__(self, plan: Plan, observer: Observer) -> None:
        self._plan = plan
        self._observer = observer
        self._who = f"The backend {plan.backend}" if plan.backend else "The session"
        self._blocks = len(plan.equations.spec.blocks)
        self._stage = EMBEDDINGS
        self._seen: set[str] = set()
        self._held: dict[str, Array] = {"tokens": np.asarray(plan.ids), "positions": np.arange(len(plan.ids))}
        self._uses = Counter(name for rests in plan.derived.values() for name in rests)
        self._spare: list[Array] = []
        self._quick = {site for site in plan.derived if plan.precision[site].accumulation == "float32"}
        self._single = evolve(plan.equations, dtype=np.float32)
        self._attending = Attending(len(plan.ids))

    def signal(self, site: str, array: Array) -> None:
        """Check what came, pass it on as cut, and hold it if a derivation rests on it."""
        plan = self._plan
        if self._stage == EMBEDDINGS != self._stage_of(site):
            self._close()
        self._check(site, array)
        self._seen.add(site)
        if self._uses[site]:
            self._held[site] = self._copy(array)
        if site in plan.cuts:
            wanted = plan.cuts[site]
            seen = (array if wanted == plan.asked[site] else wanted.apply(array)).view()
            seen.flags.writeable = False  # an observer that wrote here would write into the model
            self._observer.signal(site, seen)

    def layer_done(self, layer: int) -> None:
        """Derive what stands in this layer, then close it."""
        if self._stage == EMBEDDINGS:
            self._close()
        if layer != self._stage or layer == self._blocks:
            due = f"block {self._stage}" if self._stage < self._blocks else "none"
            raise SchemaViolationError(f"{self._who} closed block {layer} where {due} was to be closed.")
        self._close()
        self._observer.layer_done(layer)

    def finish(self) -> None:
        """Derive what stands at the end, and check that everything came. Call once the run is over."""
        if self._stage == EMBEDDINGS:
            self._close()
        if self._stage != self._blocks:
            raise SchemaViolationError(f"{self._who} ended a run without closing block {self._stage}.")
        self._close()

    def _stage_of(self, site: str) -> int:
        return stage_of(site, self._blocks)

    def _check(self, site: str, array: Array) -> None:
        plan = self._plan
        if site not in plan.asked or site in self._seen:
            fault = "twice" if site in self._seen else "without being asked"
            raise SchemaViolationError(f"{self._who} handed over {site} {fault}.")
        if self._stage_of(site) != self._stage:
            due = f"block {self._stage}" if self._stage < self._blocks else "the end"
            raise SchemaViolationError(f"{self._who} handed over {site} out of order: {due} was to come.")
        shape, dtype = plan.asked[site].shape(plan.equations.steps[site].shape(len(plan.ids))), plan.dtypes[site]
        if array.shape != shape:
            raise SchemaViolationError(
                f"{self._who} handed over {site} with shape {list(array.shape)} instead of {list(shape)}."
            )
        if array.dtype.name != dtype or not array.dtype.isnative:
            raise SchemaViolationError(
                f"{self._who} handed over {site} as {array.dtype.name}, but offers it as {dtype}."
            )

    @np.errstate(invalid="ignore", over="ignore")  # NaN and infinity are the model's own values, and reported as such
    def _close(self) -> None:
        """End a stage: nothing of it may be missing; what is derived in it is derived now."""
        plan = self._plan
        for site in plan.asked:
            if self._stage_of(site) == self._stage and site not in self._seen:
                raise SchemaViolationError(f"{self._who} did not hand over {site}, which it offers.")
        look = plan.equations.looking(self._held)
        here = [site for site in plan.derived if self._stage_of(site) == self._stage]
        attended: dict[str, Array] = {}
        for site in here:
            if site in self._quick and site not in attended:
                attended |= self._attend(site.rpartition(".")[0], here)
            array = np.asarray(attended[site] if site in attended else look(site), plan.dtypes[site]).view()
            array.flags.writeable = False
            self._observer.signal(site, plan.cuts[site].apply(array))
            for name in plan.derived[site]:
                self._uses[name] -= 1
                if not self._uses[name]:
                    self._spare.append(self._held.pop(name))
        self._stage += 1

    def _copy(self, array: Array) -> Array:
        """A copy, in memory that an earlier layer's had: pages that are made anew for each cost more than the copy."""
        like = (place for place, it in enumerate(self._spare) if (it.shape, it.dtype) == (array.shape, array.dtype))
        kept = self._spare.pop(place) if (place := next(like, None)) is not None else np.empty(array.shape, array.dtype)
        np.copyto(kept, array)
        return kept

    def _attend(self, at: str, here: Collection[str]) -> dict[str, Array]:
        """What is wanted of the attention at `at` and can be made in float32; all at once, since one rests on the other."""
        steps, names = self._single.steps, {site: site.rpartition(".")[2] for site in here if site in self._quick}
        wanted = {name: site for site, name in names.items() if site == f"{at}.{name}"}
        look = self._single.looking(self._held)
        q, k = (look(steps[f"{at}.scores"].signals[name]) for name in ("rot_q", "rot_k"))
        weight = steps[f"{at}.pattern"].weights.get("sinks") if set(wanted) != {"scores"} else None
        sinks = self._single.weight(weight) if weight else None
        found = self._attending(steps[f"{at}.scores"].record, q, k, sinks, wanted)
        return {wanted[name]: array for name, array in found.items()}
