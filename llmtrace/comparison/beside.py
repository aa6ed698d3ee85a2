"""One candidate's run beside the reference: a fold that judges each layer by the reference's equations and keeps little."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping

from attrs import evolve, frozen

from llmtrace.checking import Around
from llmtrace.comparison.by_token import TokenErrors, WorstToken, has_strip, strip, worst_of_all, worst_tokens
from llmtrace.comparison.flips import Flips, flips
from llmtrace.comparison.judging import Judge
from llmtrace.comparison.record import SiteError
from llmtrace.comparison.run import Run
from llmtrace.comparison.weights import Weighing
from llmtrace.errors import LLMTraceError
from llmtrace.protocol import TraceSession
from llmtrace.schema.evaluate import Equations, Signals
from llmtrace.schema.precision import Precision
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import any_layer
from llmtrace.schema.verify import NOT_FINITE, LocalError, measured, token_axis

ALIKE = 1e-3
"""How near two errors are that the same weights make, in float32 and in float64."""


@frozen(eq=False)
class Evidence:
    """The first site of its kind that is violated whichever weights are used, with what surrounds it."""

    error: LocalError
    """Under the reference's weights."""
    own: LocalError | None
    """Under the candidate's; None where they cannot be read."""
    signals: Signals
    """The site's, and what an equation can read of the candidate's other signals of that block and the ends."""


class Beside:
    """A fold over a candidate's signals."""

    def __init__(
        self,
        reference: Equations,
        own: Equations | None,
        run: Run,
        precision: Mapping[str, Precision],
        weighing: Weighing,
    ) -> None:
        self.sites: Collection[str] = tuple(precision)
        self.found: dict[str, SiteError] = {}
        self.errors: dict[str, LocalError] = {}
        self.owned: dict[str, LocalError] = {}
        self.evidence: dict[str, Evidence] = {}
        self.flips: list[Flips] = []
        self.strips: list[TokenErrors] = []
        self.reordered: set[str] = set()
        """Outputs of attention and MLPs whose weights stand in another order, and that are the reference's all the same."""
        self._unreadable: dict[str, str] = {}
        self._reference = reference
        self._by_theirs = Judge(reference, precision, felt=own is None)  # else the candidate's own weights decide
        self._by_own = None if own is None else Judge(own, precision)
        self._theirs, self._number = run.signals, run.number
        self._weighing = weighing
        self._around = Around(run.ids)

    def layer(self, layer: int, signals: Signals) -> None:
        """Judge one block."""
        self._judge(signals)
        self._around.done(layer, signals)

    def finish(self, ends: Signals) -> None:
        """Judge the embeddings, the final norm and the logits."""
        self._judge(ends)

    def _judge(self, signals: Signals) -> None:
        captured = self._around(signals)
        wanted = [site for site in signals if site not in self.found and site in self._reference.steps]
        judged = self._by_theirs(captured, wanted)
        self._unreadable |= {site: error.reason for site, error in judged.items() if error.unreadable}
        if self._unreadable:
            judged = {site: self._unless_spoilt(error, captured) for site, error in judged.items()}
        violated = [site for site, error in judged.items() if error.status == "violated"]
        owned = self._owned(captured, violated)
        steps = (self._reference.steps[site] for site in wanted)
        self._weighing.weigh(weight.name for step in steps for weight in step.weights.values())
        self._see_reordered(captured, owned)
        for site, error in judged.items():
            own = owned.get(site)
            if own is not None and own.status == "holds" and _alike(own, error):
                error = own  # noqa: PLW2901  by the same weights, and what rounding operands costs here is known by now
            self.errors[site] = error
            if own is not None:
                self.owned[site] = own
            whole, inherited = self._inherited(site, signals[site])
            if has_strip(site):
                self.strips.append(strip(site, self._number, error.token_errors, inherited))
            self.found[site] = SiteError(
                site,
                error.status,
                error.relative_error,
                error.worst_token_error,
                error.tolerance,
                None if own is None else own.relative_error,
                whole,
                error.reason,
                self._number,
                worst_tokens(self._number, error.token_errors, inherited),
            )
            if (flipped := self._flipped(site, captured)) is not None:
                self.flips.append(flipped)
            kind = any_layer(site)
            if error.status == "violated" and kind not in self.evidence and (own is None or own.status == "violated"):
                self.evidence[kind] = Evidence(error, own, self._readable(site, captured))

    def _readable(self, site: str, captured: Signals) -> Signals:
        if not self._unreadable:
            return captured
        return {name: array for name, array in captured.items() if name == site or name not in self._unreadable}

    def _unless_spoilt(self, error: LocalError, captured: Signals) -> LocalError:
        """A judgement, unless the site was made of what no equation could read: its fault is there, and nothing is known of this one."""
        for name in self._reference.span(error.site, captured).known:
            if (reason := self._unreadable.get(name)) is not None:
                what = "is not finite" if reason == NOT_FINITE else f"{reason}, so that nothing follows from it"
                spoilt = f"what it is made of {what}: {name}"
                return evolve(
                    error,
                    status="unchecked",
                    relative_error=0.0,
                    worst_token_error=0.0,
                    reason=spoilt,
                    worst_token=None,
                    unreadable=False,
                    token_errors=None,
                )
        return error

    def _see_reordered(self, captured: Signals, owned: Mapping[str, LocalError]) -> None:
        """Whether branches whose weights stand in another order come to what the reference's make of the same input."""
        named = [
            site
            for site, own in owned.items()
            if own.status == "holds"
            and any(map(self._weighing.reordered, (w.name for w in self._reference.steps[site].weights.values())))
        ]
        for part in dict.fromkeys(site[: site.rindex(".") + 1] for site in named if site.startswith("blocks.")):
            if (out := f"{part}out") in captured and out in self._reference.steps:
                around = {name: array for name, array in captured.items() if name == out or not name.startswith(part)}
                if self._by_theirs(around, [out])[out].status == "holds":
                    self.reordered.add(out)

    def _owned(self, captured: Signals, violated: Collection[str]) -> dict[str, LocalError]:
        """What is violated by the reference's weights, judged by the candidate's."""
        if self._by_own is None:
            return {}
        try:
            judged = self._by_own(captured, violated)
        except LLMTraceError:  # weights of other shapes than the reference's
            return {}
        return {
            site: error for site, error in judged.items() if error.status != "unchecked"
        }  # where weights are lacking

    def _inherited(self, site: str, found: Array) -> tuple[float | None, Array | None]:
        """How far a signal is from the reference's, as a whole and token by token; None where that cannot be told."""
        if site not in self._theirs or self._reference.steps[site].equation.integer:
            return None, None
        return measured(found, self._theirs[site], token_axis(self._reference.steps[site]))

    def _flipped(self, site: str, captured: Signals) -> Flips | None:
        """Experts that the reference did not choose for the same token; None for another site."""
        step = self._reference.steps[site]
        if not step.equation.integer or site not in self._theirs or step.signals["router"] not in self._theirs:
            return None
        stream = f"blocks.{step.layer}.resid_pre"
        streams = (self._theirs[stream], captured[stream]) if stream in self._theirs and stream in captured else None
        router = self._theirs[step.signals["router"]]
        return flips(site, self._number, self._theirs[site], captured[site], router, streams)


def _alike(one: LocalError, other: LocalError) -> bool:
    """Whether two judgements of a site come to the same errors, so that the weights of both are the same."""
    pairs = ((one.relative_error, other.relative_error), (one.worst_token_error, other.worst_token_error))
    return all(math.isclose(a, b, rel_tol=ALIKE) for a, b in pairs)


def offered(session: TraceSession, reference: Equations) -> list[str]:
    """The sites that a session hands out and the reference's equations know, without those recorded on request."""
    return [site for site, step in reference.steps.items() if site in session.offers and not step.equation.on_request]


def merged(runs: Iterator[Mapping[str, SiteError]]) -> dict[str, SiteError]:
    """Of several prompts, each site where it is worst, with the worst tokens of all."""
    worst: dict[str, SiteError] = {}
    tokens: dict[str, list[WorstToken]] = {}
    for run in runs:
        for site, error in run.items():
            tokens.setdefault(site, []).extend(error.worst_tokens)
            if site not in worst or _rank(error) > _rank(worst[site]):
                worst[site] = error
    return {site: evolve(error, worst_tokens=worst_of_all(tokens[site])) for site, error in worst.items()}


def _rank(error: SiteError) -> tuple[bool, float]:
    over = (
        max(error.local_error, error.worst_token_error / 2) / error.tolerance if error.tolerance else error.local_error
    )
    return error.status == "violated", over
