"""What a trace knows, and what follows from it. **Way**: how one site follows: whole, or at the rows that its inputs were recorded at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

import numpy as np
from attrs import frozen

from llmtrace.errors import SignalUnavailableError
from llmtrace.schema.evaluate import Equations, Span
from llmtrace.schema.rows import LookingAtRows
from llmtrace.schema.sites import INPUTS, Array
from llmtrace.schema.verify import token_axis
from llmtrace.selection import Cut, Indices
from llmtrace.signals import Signal


class Known(Mapping[str, Array]):
    """Inputs and signals by name; a signal in a file is read when it is looked up."""

    def __init__(self, inputs: Mapping[str, Array], signals: Mapping[str, Signal]) -> None:
        self._inputs = inputs
        self._signals = signals

    def __getitem__(self, name: str) -> Array:
        return self._inputs[name] if name in self._inputs else self._signals[name].array

    def __contains__(self, name: object) -> bool:
        return name in self._inputs or name in self._signals

    def __iter__(self) -> Iterator[str]:
        yield from self._inputs
        yield from self._signals

    def __len__(self) -> int:
        return len(self._inputs) + len(self._signals)


@frozen
class Way:
    """How one site follows from what was recorded."""

    span: Span
    """What evaluating it goes through."""
    cut: Cut | None = None
    """What of the whole signal follows; None: all of it."""


@frozen(eq=False, slots=False)
class Ground:
    """What was recorded, and the equations that more follows by."""

    equations: Equations
    """The model's, with its weights where they are at hand."""
    inputs: Mapping[str, Array]
    """`tokens` and `positions`."""
    signals: Mapping[str, Signal]
    """What was recorded, whole or in part."""

    @cached_property
    def whole(self) -> Known:
        """The inputs, and every signal recorded whole."""
        return Known(self.inputs, {site: signal for site, signal in self.signals.items() if signal.whole})

    @cached_property
    def rows(self) -> Mapping[Indices, Known]:
        """The signals recorded at some rows and whole in every other axis, by these rows; most rows first."""
        found: dict[Indices, dict[str, Signal]] = {}
        for site, signal in self.signals.items():
            kept = self._rows_of(signal)
            if kept:
                found.setdefault(kept, {})[site] = signal
        return {kept: Known({}, found[kept]) for kept in sorted(found, key=len, reverse=True)}

    def _rows_of(self, signal: Signal) -> Indices | None:
        """The rows that a signal was recorded at, if it was cut in no other axis."""
        if signal.cut is None or signal.site not in self.equations.steps:
            return None
        cut = [(place, part) for place, part in enumerate(signal.cut.indices) if part is not None]
        if [place for place, _ in cut] != [token_axis(self.equations.steps[signal.site])]:
            return None
        return cut[0][1]

    def way(self, site: str) -> Way:
        """How a site that was not recorded follows: whole where it can, else at the most rows.

        Raises `SignalUnavailableError`, which names what is missing and what was recorded in part only; `UnknownSignalError`.
        """
        step = self.equations.step(site)
        whole = set(self.whole).difference(self.inputs)
        try:
            return Way(self.equations.derivable(site, whole))
        except SignalUnavailableError as error:
            lacking = error
        for rows, part in self.rows.items():
            try:
                span = self.equations.derivable(site, whole, rows=part)
            except SignalUnavailableError:
                continue
            at = token_axis(step)
            return Way(span, Cut(tuple(rows if place == at else None for place in range(len(step.axes)))))
        raise self._refusal(site, lacking)

    def _refusal(self, site: str, lacking: SignalUnavailableError) -> SignalUnavailableError:
        """Why a site does not follow, where signals that were cut stand in the way: they are named, with what was kept of them."""
        span = self.equations.span(site, self.signals)
        parted = [name for name in span.known if name in self.signals and not self.signals[name].whole]
        if not parted:
            return self._uncaptured(site, span) or lacking
        if len({self._rows_of(self.signals[name]) for name in parted} - {None}) == 1:  # then its rows are no hindrance
            across = {name for through in span.through for name in self.equations.steps[through].across}
            parted = [name for name in parted if name in across or self._rows_of(self.signals[name]) is None] or parted
        missing = self.equations.missing(span, self.signals)
        reasons = [f"missing {', '.join(missing)}"] if missing else []
        reasons += [f"{name} was recorded in part only ({self.signals[name].part}): record it whole" for name in parted]
        return SignalUnavailableError(f"{site} cannot be derived: {'; '.join(reasons)}.")

    def _uncaptured(self, site: str, span: Span) -> SignalUnavailableError | None:
        """Where signals that were not captured suffice: which to capture, or what they follow from."""
        steps, whole = self.equations.steps, set(self.whole).difference(self.inputs)
        missing = [name for name in self.equations.missing(span, self.signals) if name in steps]
        if not missing or not self._follows(site, {*whole, *missing}):
            return None
        said = []
        for name in missing:
            instead = [other for other in steps[name].inputs if other not in INPUTS and other not in whole]
            way = f", or {' and '.join(instead)}," if instead and self._follows(name, {*whole, *instead}) else ""
            said.append(f"{name} was not captured: add it{way} to capture=")
        return SignalUnavailableError(f"{site} cannot be derived: {'; '.join(said)}.")

    def _follows(self, site: str, known: set[str]) -> bool:
        try:
            self.equations.derivable(site, known)
        except SignalUnavailableError:
            return False
        return True

    @np.errstate(invalid="ignore", over="ignore")  # NaN and infinity are the model's own values
    def evaluate(self, site: str, way: Way) -> Array:
        """The site, or its rows, along a way."""
        rows = way.cut and next(part for part in way.cut.indices if part is not None)
        if not rows:
            return self.equations.evaluate(site, self.equations.looking(self.whole))
        return LookingAtRows(self.equations, self.whole, self.rows[rows], rows)(site)
