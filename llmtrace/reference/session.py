"""One model, executed equation by equation. **Replay**: signals that are taken as given instead of being computed.

Weights are read when an equation wants them and are not kept, so a run holds those of one equation, and the signals that are still
to be read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from attrs import evolve

from llmtrace.errors import ModelOpenError, OptionError, SignalUnavailableError, UnknownSignalError, suggest
from llmtrace.overlaid import Over
from llmtrace.protocol import Gap, Observer, Offer, Request
from llmtrace.schema.evaluate import Equations, Weights
from llmtrace.schema.precision import Precision
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Step, needed, stage_of
from llmtrace.selection import Cut
from llmtrace.spec import ModelSpec
from llmtrace.tokens import Tokenizer
from llmtrace.trace import ModelInfo

TYPES: Mapping[str, type[np.floating]] = {"float64": np.float64, "float32": np.float32}


class ReferenceSession:
    """A spec with its weights, ready to run; also what runs a model that was put together by hand."""

    def __init__(
        self,
        spec: ModelSpec,
        weights: Weights,
        stored: Mapping[str, str],
        dtype: str,
        info: ModelInfo,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self.spec = spec
        self.info = info
        self.tokenizer = tokenizer
        self.weights: Mapping[str, Array] = weights
        self.stored = stored
        self._equations = Equations(spec, weights, TYPES[dtype])
        steps = self._equations.steps
        self.offers: Mapping[str, Offer] = {
            site: Offer(precision=_precision(step, dtype)) for site, step in steps.items()
        }
        self.gaps: Mapping[str, Gap] = {}
        self.replayable: Collection[str] = tuple(steps)
        self.editable: Collection[str] = tuple(site for site, step in steps.items() if not step.equation.integer)
        read = {weight.name for weight, _ in needed(spec)}
        self.replaceable: Collection[str] = tuple(name for name in weights if name in read)
        self.irreplaceable: Mapping[str, str] = {}
        self.tied: Collection[Collection[str]] = ()
        self._opaque = {site for site, step in steps.items() if step.equation.opaque}
        self._closed = False

    def run(self, request: Request, observer: Observer) -> None:
        """Evaluate what was asked for and what it rests on, in dataflow order.

        Raises, before anything is computed, `SignalUnavailableError` if the run needs an opaque branch that is not replayed,
        `UnknownSignalError` and `OptionError` for a replayed signal that has no site or another shape.
        """
        self._check_open()
        given = self._replayed(request)
        self._check_opaque(request, given)
        tokens = np.asarray(request.tokens, np.int64)
        inputs = {"tokens": tokens, "positions": np.arange(len(tokens)), **given}

        def changed(site: str, array: Array) -> Array:
            if site not in request.edits:
                return array
            array = array.copy()  # an equation may return its own input
            for change in request.edits[site]:
                change.apply(array)
            return array

        done = 0
        # NaN and infinity are the model's own, and reported
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for site, array in self._equations.run(inputs, request.cuts, changed):
                while done < stage_of(site, len(self.spec.blocks)):
                    observer.layer_done(done)
                    done += 1
                observer.signal(site, _handed_over(array, request.cuts[site]))
        for layer in range(done, len(self.spec.blocks)):
            observer.layer_done(layer)

    @contextmanager
    def replaced(self, weights: Mapping[str, Array]) -> Iterator[None]:
        """Let the equations read others. Each is read by its own name, so that none is tied, and none is rounded."""
        self._check_open()
        before = self.weights, self._equations
        self.weights = Over({name: np.array(array) for name, array in weights.items()}, before[0])
        self._equations = evolve(before[1], weights=self.weights)
        try:
            yield
        finally:
            if not self._closed:
                self.weights, self._equations = before

    def close(self) -> None:
        """Let go of the weights. Traces that were made keep their own hold on them."""
        self._closed = True
        self.weights = {}
        self._equations = Equations(self.spec)

    def _check_open(self) -> None:
        if self._closed:
            raise ModelOpenError(f"{self.info.source} is closed: open it again to run it.")

    def _replayed(self, request: Request) -> dict[str, Array]:
        steps = self._equations.steps
        for site, array in request.replay.items():
            if site not in steps:
                raise UnknownSignalError(
                    f"{site!r} cannot be replayed: it is no site of this model.{suggest(site, steps)}"
                )
            wanted = steps[site].shape(len(request.tokens))
            if np.shape(array) != wanted:
                raise OptionError(
                    f"The replayed {site} has shape {list(np.shape(array))}, and this prompt needs {list(wanted)}."
                )
        return {site: np.asarray(array) for site, array in request.replay.items()}

    def _check_opaque(self, request: Request, given: Mapping[str, Array]) -> None:
        for wanted in request.cuts if self._opaque - set(given) else ():
            if wanted in given:
                continue
            if opaque := self._equations.span(wanted, given).opaque:
                raise SignalUnavailableError(
                    f"{wanted} rests on {', '.join(sorted(opaque))}, which the equations do not compute: capture it with a backend that "
                    "runs the model, and hand it over as replay.",
                    gap="ours",
                )


def _precision(step: Step, dtype: str) -> Precision:
    return Precision("int64" if step.equation.integer else dtype, dtype)


def _handed_over(array: Array, cut: Cut) -> Array:
    """As cut, and read-only."""
    view = cut.apply(array).view()
    view.flags.writeable = False
    return view
