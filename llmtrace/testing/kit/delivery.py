"""Delivery: which signals come, when, how often, and as what."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from attrs import evolve

from llmtrace.model import Model
from llmtrace.protocol import Request, SupportsKeeping
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import stage_of
from llmtrace.selection import Pick, cut
from llmtrace.testing.kit.base import Kit
from llmtrace.testing.kit.running import Watch, watch, whole
from llmtrace.testing.model import TinyModel


class DeliveryKit(Kit):
    """What the observer sees."""

    def test_signals_come_once_in_layer_order(self, model: Model, tiny: TinyModel) -> None:
        """Each requested signal comes once: embeddings before block 0, a block's before its end, the rest after the last block."""
        seen = watch(model.session, tiny.tokens)
        in_order(seen, len(model.spec.blocks))
        for site in dict.fromkeys([*model.session.offers, *seen.arrays]):
            wanted = int(site in model.session.offers)
            assert seen.events.count(site) == wanted, f"{site} came {seen.events.count(site)} times instead of {wanted}"

    def test_blocks_end_where_nothing_was_asked_of_them(self, model: Model, tiny: TinyModel) -> None:
        """`layer_done` is called for every block, in order, also where none of its signals, or nothing at all, was requested."""
        seen = watch(model.session, tiny.tokens, whole(model.session, len(tiny.tokens), ["logits"]))
        in_order(seen, len(model.spec.blocks))
        assert list(seen.arrays) == ["logits"], f"asked for the logits, {', '.join(seen.arrays) or 'nothing'} came"
        ends = watch(model.session, tiny.tokens, {}).events
        assert ends == [*range(len(model.spec.blocks))], (
            f"asked for nothing, {', '.join(map(str, ends)) or 'nothing'} came"
        )

    def test_only_what_is_asked_for_comes(self, model: Model, tiny: TinyModel) -> None:
        """Any selection brings its sites and no others, cut as asked to the byte, with the values of the whole."""
        count = len(tiny.tokens)
        all_of_it = watch(model.session, tiny.tokens).arrays
        table = model.equations.steps
        random = np.random.default_rng(0)
        for pick in (
            Pick("**", heads=[1]),
            Pick("**", tokens=[-1, 2]),
            Pick("**", heads=[2, 0], tokens=[3], channels=[5, 1]),
        ):
            shuffled = [str(site) for site in random.permutation(sorted(all_of_it))]
            for sites in (shuffled[::2], shuffled[1::2]):  # every site is cut, and every other is not asked for
                shape = {site: table[site].shape(count) for site in sites}
                cuts = {site: cut(table[site], _within(pick, shape[site]), count) for site in sites}
                seen = watch(model.session, tiny.tokens, cuts)
                for site in dict.fromkeys([*sites, *seen.arrays]):
                    assert site in cuts, f"{site} came unasked"
                    assert site in seen.arrays, f"{site} was asked for and did not come"
                for site, _, came, *_, size in seen.handed:
                    wanted = cuts[site].apply(all_of_it[site])
                    words = f"{site} cut to {cuts[site].words(table[site].axes) or 'all of it'}"
                    assert (came, size) == (wanted.shape, wanted.nbytes), (
                        f"{words} has shape {came} instead of {wanted.shape}"
                    )
                    assert np.array_equal(seen.arrays[site], wanted, equal_nan=True), (
                        f"{words} has other values than the whole"
                    )

    def test_arrays_are_what_was_offered(self, model: Model, tiny: TinyModel) -> None:
        """Each is a NumPy array in this machine's byte order, without a batch axis, in the schema's shape and the offer's type."""
        for length in (1, len(tiny.tokens)):
            for site, kind, shape, dtype, native, _ in watch(model.session, tiny.tokens[:length]).handed:
                assert issubclass(kind, np.ndarray), f"{site} came as {kind.__name__}"
                step, offer = model.equations.steps[site], model.session.offers[site]
                wanted = step.shape(length)
                assert shape == wanted, f"the shape of {site} is {shape} instead of {wanted} [{' '.join(step.axes)}]"
                assert dtype == offer.dtype, f"the type of {site} is {dtype} instead of {offer.dtype}"
                assert native, f"the byte order of {site} is another machine's"

    def test_what_is_said_to_last_stays_as_it_is(self, model: Model, tiny: TinyModel) -> None:
        """Arrays of `lasting` sites, where a session has any, hold after the run, and after another, what they held when they came."""
        if not isinstance(model.session, SupportsKeeping):
            pytest.skip("the session says of no array that it lasts")
        cuts = whole(model.session, len(tiny.tokens))
        kept = _Kept(model.session.lasting)
        model.session.run(Request(tiny.tokens, cuts), kept)
        model.session.run(Request(tiny.tokens[::-1], cuts), Watch())
        for site, (array, before) in kept.arrays.items():
            assert np.array_equal(array, before, equal_nan=True), f"{site} was said to last and was written into"


class _Kept:
    """Keeps arrays, and copies of them."""

    def __init__(self, sites: Collection[str]) -> None:
        self._sites = sites
        self.arrays: dict[str, tuple[Array, Array]] = {}

    def signal(self, site: str, array: Array) -> None:
        """Keep both."""
        if site in self._sites:
            self.arrays[site] = array, array.copy()

    def layer_done(self, layer: int) -> None:
        """Nothing waits for it."""


def _within(pick: Pick, shape: tuple[int, ...]) -> Pick:
    """Without the channels that a site is too narrow for."""
    return pick if pick.channels is None or shape[-1] > max(pick.channels) else evolve(pick, channels=None)


def in_order(seen: Watch, blocks: int) -> None:
    """Each signal came in its block, and each block ended, once, after the one before it."""
    due = 0
    for event in seen.events:
        if isinstance(event, int):
            assert event == due, f"block {event} ended where block {due} was to end"
            due += 1
        else:
            stage = max(stage_of(event, blocks), 0)
            assert stage >= due, f"{event} came after block {stage} had ended"
            assert stage <= due, f"{event} came before block {due} had ended"
    assert due == blocks, f"block {due} never ended"
