"""Neutrality: looking changes nothing, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from llmtrace.edits import Change
from llmtrace.model import Model
from llmtrace.protocol import Request
from llmtrace.schema.sites import Array
from llmtrace.schema.verify import distance
from llmtrace.testing.kit.base import Kit
from llmtrace.testing.kit.running import Watch, changed, explained, logits, watch, whole
from llmtrace.testing.model import TinyModel


class Refuses(Watch):
    """An observer that fails at its n-th signal, or, without a number, at the end of the first block."""

    def __init__(self, place: int | None) -> None:
        super().__init__()
        self.place = place
        self.error = RuntimeError("the observer has had enough")
        self.after = -1
        """How often it was called after it had failed."""

    def signal(self, site: str, array: Array) -> None:
        """Fail when it is time."""
        if self.after >= 0 or len(self.arrays) == self.place:
            self._fail()
        super().signal(site, array)

    def layer_done(self, layer: int) -> None:
        """Fail when it is time."""
        if self.after >= 0 or self.place is None:
            self._fail()

    def _fail(self) -> None:
        self.after += 1
        raise self.error


class NeutralKit(Kit):
    """What a run leaves as it was."""

    def test_capture_does_not_change_the_logits(self, model: Model, tiny: TinyModel) -> None:
        """The logits of a run in which everything is asked for are those of one in which nothing is, within `capture_tolerance`."""
        bare = logits(model.session, tiny.tokens)
        seen = watch(model.session, tiny.tokens).arrays["logits"]
        _hold(model, bare, seen, "everything")

    def test_no_single_signal_changes_the_logits(self, model: Model, tiny: TinyModel) -> None:
        """As above, for each signal alone: two changes might cancel, and a kernel may be switched for one signal only."""
        bare = logits(model.session, tiny.tokens)
        for site in model.session.offers:
            cuts = whole(model.session, len(tiny.tokens), dict.fromkeys([site, "logits"]))
            _hold(model, bare, watch(model.session, tiny.tokens, cuts).arrays["logits"], site)

    def test_runs_repeat(self, model: Model, tiny: TinyModel) -> None:
        """The same prompt gives the same bits again, also after another prompt: a session keeps nothing of a run."""
        first = watch(model.session, tiny.tokens).arrays
        for other in (tiny.tokens[::-1], tiny.tokens[:3]):
            watch(model.session, other)
            others = changed(first, watch(model.session, tiny.tokens).arrays)
            assert not others, f"after a prompt of {len(other)} other tokens, {others}"

    def test_an_observer_that_fails_stops_the_run_and_leaves_the_model(self, model: Model, tiny: TinyModel) -> None:
        """An observer's exception comes out unchanged, the observer is not called again, and the next run is as if nothing had happened."""
        before = watch(model.session, tiny.tokens).arrays
        for place in (0, len(before) // 2, len(before) - 1, None):
            refused(model, tiny, Refuses(place))
        others = changed(before, watch(model.session, tiny.tokens).arrays)
        assert not others, f"after runs that an observer stopped, {others}"


def refused(
    model: Model, tiny: TinyModel, observer: Refuses, edits: Mapping[str, Sequence[Change]] | None = None
) -> None:
    """A run that the observer stops, of the session itself: the core passes on what a session swallows."""
    came: BaseException | None = None
    try:
        model.session.run(Request(tiny.tokens, whole(model.session, len(tiny.tokens)), {}, edits or {}), observer)
    except Exception as error:
        came = error
    assert came is not None, "the observer's exception was swallowed"
    assert came is observer.error, f"the observer's exception came out as {type(came).__name__}: {came}"
    assert observer.after == 0, f"the run went on: the observer was called {observer.after} times after it had failed"


def _hold(model: Model, bare: Array, seen: Array, asked: str) -> None:
    """The logits stay within the stated tolerance, which is no wider than what rounding explains."""
    allowed, most = model.info.capture_tolerance, explained(model.session)
    assert allowed <= most, f"capture_tolerance is {allowed:.1e}, and the rounding that is declared explains {most:.1e}"
    moved = 0.0 if np.array_equal(bare, seen) else distance(seen, bare)[0]
    assert moved <= allowed, (
        f"the logits moved by {moved:.1e} when {asked} is asked for; capture_tolerance is {allowed:.1e}"
    )
