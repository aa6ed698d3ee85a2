"""Deriving while the model runs: what the runtime does not hand out follows from what it does, with the memory of one layer."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from functools import lru_cache

import numpy as np
from attrs import evolve

from llmtrace.errors import SchemaViolationError
from llmtrace.protocol import Observer
from llmtrace.recording import Plan
from llmtrace.schema.attending import Attending, attends
from llmtrace.schema.attending_rows import attending_rows
from llmtrace.schema.evaluate import Equations
from llmtrace.schema.reuse import Reuse
from llmtrace.schema.rows import LookingAtRows
from llmtrace.schema.sites import INPUTS, Array
from llmtrace.schema.steps import stage_of
from llmtrace.schema.verify import token_axis

EMBEDDINGS = -1
"""The stage of a run before block 0; block L is stage L, and the end comes after the last."""
BLOCK = 1 << 16
"""Numbers that are derived at once where tokens stand alone, 512 KiB in float64. What is larger than a processor's cache is also new memory
each time, and that costs more than the arithmetic.
"""


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
        self._memory = Reuse()
        self._due: dict[int, list[str]] = defaultdict(list)
        """What the session is to hand over in each stage."""
        self._derived: dict[int, list[str]] = defaultdict(list)
        """What is derived in each."""
        for site in plan.asked:
            self._due[stage_of(site, self._blocks)].append(site)
        for site in plan.derived:
            self._derived[stage_of(site, self._blocks)].append(site)
        self._stages = {site: stage for stage, sites in self._due.items() for site in sites}
        self._quick = {site for site in plan.derived if plan.precision[site].accumulation == "float32"}
        self._single = evolve(plan.equations, dtype=np.float32)
        self._attending = Attending(len(plan.ids), plan.equations.arithmetic)

    def signal(self, site: str, array: Array) -> None:
        """Check what came, pass it on as cut, and hold it if a derivation rests on it."""
        plan = self._plan
        if self._stage == EMBEDDINGS != self._stages.get(site, EMBEDDINGS):
            self._close()
        self._check(site, array)
        self._seen.add(site)
        if self._uses[site]:
            self._held[site] = array if site in plan.lasting else self._copy(array)
        if site in plan.cuts:
            wanted = plan.cuts[site]
            asked = plan.asked[site]
            seen = (array if wanted is asked or wanted == asked else wanted.apply(array)).view()
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

    def _check(self, site: str, array: Array) -> None:
        plan = self._plan
        if site not in plan.asked or site in self._seen:
            fault = "twice" if site in self._seen else "without being asked"
            raise SchemaViolationError(f"{self._who} handed over {site} {fault}.")
        if self._stages[site] != self._stage:
            due = f"block {self._stage}" if self._stage < self._blocks else "the end"
            raise SchemaViolationError(f"{self._who} handed over {site} out of order: {due} was to come.")
        shape, dtype = plan.shapes.get(site), plan.dtypes[site]
        if shape is None:
            shape = plan.asked[site].shape(plan.equations.steps[site].shape(len(plan.ids)))
        if array.shape != shape:
            raise SchemaViolationError(
                f"{self._who} handed over {site} with shape {list(array.shape)} instead of {list(shape)}."
            )
        if _named(array.dtype) != dtype or not array.dtype.isnative:
            raise SchemaViolationError(
                f"{self._who} handed over {site} as {array.dtype.name}, but offers it as {dtype}."
            )

    @np.errstate(invalid="ignore", over="ignore")  # NaN and infinity are the model's own values, and reported as such
    def _close(self) -> None:
        """End a stage: nothing of it may be missing; what is derived in it is derived now."""
        plan = self._plan
        for site in self._due[self._stage]:
            if site not in self._seen:
                raise SchemaViolationError(f"{self._who} did not hand over {site}, which it offers.")
        look = plan.equations.looking(self._held)
        here = self._derived[self._stage]
        made = self._in_blocks([site for site in here if site in plan.rowwise and not self._some(site)])
        for site in here:
            if self._some(site):
                array = self._rows(site)
            else:
                if site in self._quick and site not in made:
                    made |= self._attend(site.rpartition(".")[0], here)
                found = made[site] if site in made else look(site)
                array = plan.cuts[site].apply(np.asarray(found, plan.dtypes[site]))
            array = array.view()
            array.flags.writeable = False
            self._observer.signal(site, array)
            for name in plan.derived[site]:
                self._uses[name] -= 1
                if not self._uses[name]:
                    del self._held[name]
        self._stage += 1

    def _copy(self, array: Array) -> Array:
        """A copy, in memory that an earlier layer's had, if nobody kept that."""
        kept, _ = self._memory.take(array.shape, array.dtype)
        np.copyto(kept, array)
        return kept

    def _in_blocks(self, sites: Sequence[str]) -> dict[str, Array]:
        """Sites of which each token's part stands alone, made of so many tokens at once that what it goes through stays in the cache."""
        plan, steps, length = self._plan, self._plan.equations.steps, len(self._plan.ids)
        found = {site: self._memory.take(steps[site].shape(length), plan.dtypes[site])[0] for site in sites}
        held = {name: self._held[name] for site in sites for name in (*plan.derived[site], *INPUTS)}
        axes = {name: 0 if name in INPUTS else token_axis(steps[name]) for name in (*found, *held)}
        width = max((array.size // length for array in (*found.values(), *held.values())), default=1)
        count = max(1, BLOCK // width)
        for first in range(0, length if sites else 0, count):
            rows = slice(first, first + count)
            parts = {name: array[(*(slice(None),) * axes[name], rows)] for name, array in held.items()}
            look = plan.equations.looking(parts)
            for site, array in found.items():
                array[(*(slice(None),) * axes[site], rows)] = look(site)
        return found

    def _some(self, site: str) -> bool:
        """Whether little of a site is wanted, so that no more than that is to be made."""
        step = self._plan.equations.steps[site]
        few = [axis for axis, part in zip(step.axes, self._plan.cuts[site].indices, strict=True) if part is not None]
        return bool({"token", "query"} & {*few}) or ("head" in few and attends(step, self._plan.derived[site]))

    def _rows(self, site: str) -> Array:
        """What is wanted of a site, made at the wanted tokens only; of scores and what follows from them, of the wanted heads."""
        plan, step, cut = self._plan, self._plan.equations.steps[site], self._plan.cuts[site]
        tokens = cut.indices[token_axis(step)]
        if not attends(step, plan.derived[site]):
            every = tuple(range(len(plan.ids)))
            found = LookingAtRows(plan.equations, self._held, {}, every if tokens is None else tokens)(site)
            rest = tuple(None if at == token_axis(step) else part for at, part in enumerate(cut.indices))
            return evolve(cut, indices=rest).apply(np.asarray(found, plan.dtypes[site]))
        at, _, name = site.rpartition(".")
        equations = self._single if site in self._quick else plan.equations
        q, k, sinks = self._attention(equations, at, with_sinks=name != "scores")
        heads = cut.indices[step.axes.index("head")]
        found = attending_rows(step.record, q, k, sinks, (name,), tokens, heads)[name]
        return np.asarray(found, plan.dtypes[site])

    def _attention(self, equations: Equations, at: str, *, with_sinks: bool) -> tuple[Array, Array, Array | None]:
        """Queries, keys and sinks of the attention at `at`, in the type that the equations compute in."""
        look, scores = equations.looking(self._held), equations.steps[f"{at}.scores"]
        weight = equations.steps[f"{at}.pattern"].weights.get("sinks") if with_sinks else None
        q, k = (look(scores.signals[name]) for name in ("rot_q", "rot_k"))
        return q, k, equations.weight(weight) if weight else None

    def _attend(self, at: str, here: Collection[str]) -> dict[str, Array]:
        """What is wanted whole of the attention at `at` and can be made in float32; all at once, since one rests on the other."""
        names = {site: site.rpartition(".")[2] for site in here if site in self._quick and not self._some(site)}
        wanted = {name: site for site, name in names.items() if site == f"{at}.{name}"}
        q, k, sinks = self._attention(self._single, at, with_sinks=set(wanted) != {"scores"})
        found = self._attending(self._single.steps[f"{at}.scores"].record, q, k, sinks, wanted)
        return {wanted[name]: array for name, array in found.items()}


@lru_cache(maxsize=64)
def _named(dtype: np.dtype[np.generic]) -> str:
    """Its name, which NumPy puts together each time."""
    return dtype.name
