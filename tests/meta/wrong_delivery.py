"""Backends that hand over the right numbers at the wrong time, too often, in another form, or not at all."""

from __future__ import annotations

import threading

import numpy as np
from attrs import evolve

from llmtrace.selection import Cut
from tests.meta.honest import Between, HonestSession
from tests.meta.lie import Lie


def handing(observer_class):
    """A session that puts such an observer in between."""
    return type(observer_class.__name__, (HonestSession,), {"wrap": lambda self, observer: observer_class(observer)})


class Late(Between):
    """Each block's first signal comes after the block has ended."""

    held = None

    def signal(self, site, array):
        if site.endswith(("0.resid_pre", "1.resid_pre")):
            self.held = site, array.copy()
        else:
            super().signal(site, array)

    def layer_done(self, layer):
        super().layer_done(layer)
        if self.held is not None:
            super().signal(*self.held)
            self.held = None


class Twice(Between):
    def signal(self, site, array):
        super().signal(site, array)
        if site == "blocks.1.attn.z":
            super().signal(site, array)


class Withheld(Between):
    def signal(self, site, array):
        if site != "blocks.1.attn.z":
            super().signal(site, array)


class NeverEnds(Between):
    """The last block is not closed."""

    def layer_done(self, layer):
        if layer != 2:
            super().layer_done(layer)


class EndsEarly(Between):
    """A block is closed when its attention is through."""

    def signal(self, site, array):
        super().signal(site, array)
        if site.endswith("attn.out"):
            super().layer_done(int(site.split(".")[1]))

    def layer_done(self, layer):
        pass


class EndsWithItsSignals(Between):
    """Only blocks of which something was asked are closed."""

    seen = -1

    def signal(self, site, array):
        if site.startswith("blocks."):
            self.seen = int(site.split(".")[1])
        super().signal(site, array)

    def layer_done(self, layer):
        if layer == self.seen:
            super().layer_done(layer)


class Unasked(HonestSession):
    """Hands over the embeddings in any case."""

    def run(self, request, observer):
        super().run(evolve(request, cuts={"embed": Cut((None, None)), **request.cuts}), observer)


class Uncut(HonestSession):
    """One site comes whole, whatever was asked of it."""

    def run(self, request, observer):
        cuts = {site: evolve(cut, indices=(None,) * len(cut.indices)) if site == "blocks.1.attn.rot_k" else cut
                for site, cut in request.cuts.items()}  # fmt: skip
        super().run(evolve(request, cuts=cuts), observer)


class CutInOrder(HonestSession):
    """What was asked for comes in the model's order instead of the order asked for."""

    def run(self, request, observer):
        cuts = {site: evolve(cut, indices=tuple(part and tuple(sorted(part)) for part in cut.indices))
                for site, cut in request.cuts.items()}  # fmt: skip
        super().run(evolve(request, cuts=cuts), observer)


class KeysRepeated(HonestSession):
    def hand(self, site, array):
        return np.repeat(array, 2, axis=1) if site.endswith("attn.k") else array


class Batched(HonestSession):
    def hand(self, site, array):
        return array[None] if site == "logits" else array


class Doubles(HonestSession):
    def hand(self, site, array):
        return array.astype(np.float64) if site.endswith("attn.z") else array


class Swapped(HonestSession):
    """Big-endian."""

    def hand(self, site, array):
        return array.astype(">f4") if site.endswith("attn.z") else array


class AnotherThread(HonestSession):
    """Calls the observer from a worker of its own."""

    def run(self, request, observer):
        failed = []

        def work():
            try:
                HonestSession.run(self, request, observer)
            except BaseException as error:
                failed.append(error)

        worker = threading.Thread(target=work)
        worker.start()
        worker.join()
        if failed:
            raise failed[0]


class SwallowingEnds(Between):
    """Swallows what an observer raises at the end of a block."""

    def layer_done(self, layer):
        try:
            super().layer_done(layer)
        except Exception:
            return


class Swallowing(SwallowingEnds):
    """Thinks that an observer's exception is its own business."""

    def signal(self, site, array):
        try:
            super().signal(site, array)
        except Exception:
            return


class NothingAsked(HonestSession):
    """Does not run where nothing is asked for."""

    def run(self, request, observer):
        if request.cuts:
            super().run(request, observer)


class Wrapping(Between):
    def signal(self, site, array):
        try:
            super().signal(site, array)
        except Exception as error:
            raise ValueError("the callback failed") from error


class GoesOn(HonestSession):
    """Remembers the exception, as a callback of C must, and calls the observer with the rest all the same."""

    def run(self, request, observer):
        failed = []

        class Keeps(Between):
            def signal(self, site, array):
                try:
                    super().signal(site, array)
                except Exception as error:
                    failed.append(error)

        super().run(request, Keeps(observer))
        if failed:
            raise failed[0]


class UsedAgain(HonestSession):
    """Everything is said to last, and one buffer serves every layer."""

    lasting = ("blocks.0.attn.z", "blocks.1.attn.z")

    def hand(self, site, array):
        if not site.endswith("attn.z"):
            return array
        self.buffer = vars(self).get("buffer", array.copy())
        self.buffer[...] = array
        return self.buffer


ORDER, ASKED, OFFERED = (
    "test_signals_come_once_in_layer_order",
    "test_only_what_is_asked_for_comes",
    "test_arrays_are_what_was_offered",
)
FAILING = "test_an_observer_that_fails_stops_the_run_and_leaves_the_model[llama]"
LIES = [
    Lie("a signal comes after its block has ended", handing(Late), f"{ORDER}[llama]", r"blocks\.0\.resid_pre came after block 0 had ended"),
    Lie("a signal comes twice", handing(Twice), f"{ORDER}[llama]", r"blocks\.1\.attn\.z came 2 times"),
    Lie("a signal does not come", handing(Withheld), f"{ORDER}[llama]", r"blocks\.1\.attn\.z came 0 times"),
    Lie("the last block never ends", handing(NeverEnds), f"{ORDER}[llama]", r"came before block 2 had ended"),
    Lie("a block ends before its last signal", handing(EndsEarly), f"{ORDER}[llama]", r"blocks\.0\.\S+ came after block 0 had ended"),
    Lie("blocks of which nothing was asked never end", handing(EndsWithItsSignals),
        "test_blocks_end_where_nothing_was_asked_of_them[llama]", r"logits came before block 0 had ended"),
    Lie("a signal comes that nobody asked for", Unasked, f"{ASKED}[llama]", r"embed came unasked"),
    Lie("one site is not cut", Uncut, f"{ASKED}[llama]", r"blocks\.1\.attn\.rot_k cut to .* has shape"),
    Lie("cuts come in another order", CutInOrder, f"{ASKED}[llama]", r"\S+ cut to .*(tokens 11 2|heads 2 0).* has other values"),
    Lie("keys repeated to the number of query heads", KeysRepeated, f"{OFFERED}[llama]", r"the shape of blocks\.0\.attn\.k"),
    Lie("a batch axis", Batched, f"{OFFERED}[llama]", r"the shape of logits"),
    Lie("float64 where float32 is offered", Doubles, f"{OFFERED}[llama]", r"the type of blocks\.0\.attn\.z"),
    Lie("another machine's byte order", Swapped, f"{OFFERED}[llama]", r"the byte order of blocks\.0\.attn\.z"),
    Lie("the observer is called on another thread", AnotherThread, "test_the_observer_is_called_on_the_callers_thread[llama]",
        r"called on another thread, with embed"),
    Lie("an observer's exception is swallowed", handing(Swallowing), FAILING, r"the observer's exception was swallowed"),
    Lie("its exception at the end of a block is swallowed", handing(SwallowingEnds), FAILING, r"the run went on"),
    Lie("a run of which nothing is asked is left out", NothingAsked, "test_blocks_end_where_nothing_was_asked_of_them[llama]",
        r"asked for nothing, nothing came"),
    Lie("an observer's exception is wrapped", handing(Wrapping), FAILING, r"came out as ValueError"),
    Lie("an observer that failed is called again", GoesOn, FAILING, r"went on"),
    Lie("one buffer serves every layer, and is said to last", UsedAgain, "test_what_is_said_to_last_stays_as_it_is[llama]",
        r"blocks\.0\.attn\.z was said to last"),
]  # fmt: skip
