"""The one evaluator. What differs between running, deriving, verifying and locating is only what `look` already knows.

**Span**: the sites between a site and the known ones that evaluating it goes through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from typing import Literal, TypeAlias

import attrs
import numpy as np

from llmtrace.errors import SchemaViolationError, SignalUnavailableError, UnknownSignalError, suggest
from llmtrace.schema.arithmetic import NUMPY, Arithmetic
from llmtrace.schema.sites import INPUTS, Array
from llmtrace.schema.steps import BEFORE, Step, Weight, steps
from llmtrace.spec import ModelSpec

Look: TypeAlias = Callable[[str], Array]
Signals: TypeAlias = Mapping[str, Array]
Weights: TypeAlias = Mapping[str, Array]


def _as_it_is(site: str, array: Array) -> Array:
    return array


@attrs.frozen
class Span:
    """What evaluating a site would go through. Nothing is computed to know it."""

    through: tuple[str, ...]
    """The sites to evaluate, the wanted one first."""
    known: tuple[str, ...]
    """The known signals and model inputs that they rest on."""
    weights: tuple[str, ...]
    """The weights that they read."""
    opaque: tuple[str, ...]
    """Sites among `through` that no equation gives: opaque ones, and those that were put there or changed in flight."""


@attrs.frozen(slots=False)
class Equations:
    """A spec with its weights: what a model says that its signals must obey. `attrs.evolve(it, spec=…)` asks «what if»."""

    spec: ModelSpec
    """What the model is."""
    weights: Weights = attrs.field(factory=dict, repr=False)
    """By schema name; may be empty, or lack some."""
    dtype: type[np.floating] = np.float64
    """What the equations compute in."""
    given: frozenset[str] = frozenset()
    """Sites whose value was put there or changed in flight: their equation says nothing of it."""
    arithmetic: Arithmetic = attrs.field(default=NUMPY, repr=False)
    """What large arrays are worked on with, where it is done quickly (`Attending`)."""

    @cached_property
    def steps(self) -> Mapping[str, Step]:
        """Every site, in dataflow order."""
        return steps(self.spec)

    def step(self, site: str) -> Step:
        """The step of a site. Raises `UnknownSignalError` with near names."""
        if site not in self.steps:
            raise UnknownSignalError(
                f"{site!r} is not a site of this {self.spec.family} model.{suggest(site, self.steps)}"
            )
        return self.steps[site]

    def evaluate(self, site: str, look: Look) -> Array:
        """Apply one equation to what `look` gives for its inputs."""
        step = self.step(site)
        named = {parameter: look(name) for parameter, name in step.signals.items()}
        named |= {parameter: self.weight(weight) for parameter, weight in step.weights.items()}
        return step.equation.fn(step.record, *map(look, step.terms), **named)

    def weight(self, weight: Weight) -> Array:
        """A weight in the type that the equations compute in.

        Raises `SignalUnavailableError` if it is not at hand, `SchemaViolationError` if it has another shape than the spec says.
        """
        try:
            array = self.weights[weight.name]
        except KeyError:  # asking `in` first would read it twice, where a mapping reads on access
            raise SignalUnavailableError(
                f"The weight {weight.name} is not at hand: derive with the model that made this trace."
            ) from None
        if array.shape != weight.shape:
            axes, backend = " ".join(weight.axes), getattr(self.weights, "backend", "")
            whose = f" of the backend {backend}" if backend else ""
            raise SchemaViolationError(
                f"The weight {weight.name}{whose} has shape {list(array.shape)}; the spec makes it {list(weight.shape)} [{axes}]."
            )
        return self.cast(array)

    def cast(self, array: Array) -> Array:
        """Floating-point arrays in the type that the equations compute in, others as they are."""
        return array if array.dtype.kind in "iub" else array.astype(self.dtype, copy=False)

    def looking(self, known: Signals) -> Look:
        """Known signals as they are, the others evaluated, each once."""
        return _Looking(self, known)

    def span(self, site: str, known: Collection[str], rows: Collection[str] = ()) -> Span:
        """What evaluating `site` itself goes through, if the signals in `known` need not be computed.

        `rows` are signals known at the wanted rows only: they end the span where nothing reads across them.
        """
        through: dict[tuple[str, bool], None] = {}
        rests: dict[str, None] = {}
        waiting = [(site, False)]
        while waiting:
            here, every = waiting.pop()
            through[here, every] = None
            step = self.step(here)
            across = step.across
            for name in step.inputs:
                whole = every or name in across
                if name in known or name in INPUTS or (name in rows and not whole):
                    rests[name] = None
                elif (name, whole) not in through:
                    waiting.append((name, whole))
        visited = [self.steps[name] for name in dict.fromkeys(name for name, _ in through)]
        weights = dict.fromkeys(weight.name for step in visited for weight in step.weights.values())
        opaque = tuple(step.site for step in visited if step.equation.opaque or step.site in self.given)
        return Span(tuple(step.site for step in visited), tuple(rests), tuple(weights), opaque)

    def derivable(
        self,
        site: str,
        known: Collection[str],
        weights: Collection[str] | None = None,
        *,
        rows: Collection[str] = (),
        purpose: Literal["derived", "checked"] = "derived",
    ) -> Span:
        """The span of a site that what is known suffices for; `weights` are those at hand (default: this object's own).

        A derivation fills a gap, it does not run the model: it stays within one block, and from the tokens alone only the
        embeddings follow. Raises `SignalUnavailableError`, which names what is missing, and what for.
        """
        span = self.span(site, known, rows)
        if missing := self.missing(span, known, weights):
            raise SignalUnavailableError(f"{site} cannot be {purpose}: missing {', '.join(missing)}.")
        return span

    def missing(self, span: Span, known: Collection[str], weights: Collection[str] | None = None) -> list[str]:
        """What a derivation along a span lacks, in words; nothing where it can be made."""
        missing = [
            f"{name} ({'replayed or edited, so no equation gives it' if name in self.given else 'opaque to the equations'})"
            for name in span.opaque
        ]
        layers = {self.steps[name].layer for name in span.through} - {None}
        if len(layers) > 1 or ("tokens" in span.known and span.through[0] not in BEFORE):
            missing += self._ends(span, known)
        lacking = [name for name in span.weights if name not in (self.weights if weights is None else weights)]
        if lacking:
            missing.append(f"the weight {lacking[0]}" + (f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""))
        return missing

    def _ends(self, span: Span, known: Collection[str]) -> list[str]:
        """The direct inputs of the wanted site that nothing captured leads to."""
        inputs = [name for name in self.steps[span.through[0]].inputs if name not in INPUTS and name not in known]
        return inputs or [span.through[0]]

    def run(
        self, inputs: Signals, wanted: Collection[str], changed: Callable[[str, Array], Array] = _as_it_is
    ) -> Iterator[tuple[str, Array]]:
        """Evaluate in order, from the model's inputs (and signals to be taken as given), what `wanted` needs.

        Yields the wanted sites in dataflow order. What flows on from a site is what `changed` makes of its value. An array is dropped
        after the last step that reads it.
        """
        needed = self._needed(wanted, inputs)
        readers = Counter(name for site in needed for name in self.steps[site].inputs)
        alive = {name: changed(name, self.cast(array)) for name, array in inputs.items()}
        for site in self.steps:
            if site in inputs and site in wanted:
                yield site, alive[site]
            if site not in needed:
                continue
            alive[site] = changed(site, self.evaluate(site, alive.__getitem__))
            if site in wanted:
                yield site, alive[site]
            for name in self.steps[site].inputs:
                readers[name] -= 1
                if not readers[name] and name not in INPUTS:
                    del alive[name]
            if not readers[site]:
                del alive[site]

    def _needed(self, wanted: Collection[str], inputs: Signals) -> set[str]:
        needed: set[str] = set()
        waiting = [site for site in wanted if site not in inputs]
        while waiting:
            here = waiting.pop()
            if here not in needed:
                needed.add(here)
                waiting += [name for name in self.step(here).inputs if name not in inputs]
        return needed


class _Looking:
    """Remembers what it found. An object and no closure: a function that calls itself would hold its arrays until a collection."""

    def __init__(self, equations: Equations, known: Signals) -> None:
        self._equations = equations
        self._known = known
        self._memo: dict[str, Array] = {}

    def __call__(self, site: str) -> Array:
        if site not in self._memo:
            known = site in self._known
            self._memo[site] = (
                self._equations.cast(self._known[site]) if known else self._equations.evaluate(site, self)
            )
        return self._memo[site]
