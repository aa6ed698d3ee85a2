"""Isolation: sessions know nothing of each other, and end when they are closed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from llmtrace.errors import ModelOpenError
from llmtrace.model import Model
from llmtrace.protocol import Request
from llmtrace.schema.sites import Array
from llmtrace.testing.kit.base import OTHER_SEED, Bench, Kit
from llmtrace.testing.kit.running import Watch, changed, logits, watch, whole
from llmtrace.testing.model import TinyModel

ALONE = 2.0
"""Seconds that a run waits for one beside it, which a session may hold up until this one has ended."""
TURNS = 1e-4
"""Seconds for which Python lets a thread run before another's turn, while two run models: a fiftieth of the usual."""


class IsolationKit(Kit):
    """Sessions beside each other, and their end."""

    def test_two_sessions_know_nothing_of_each_other(
        self, one: TinyModel, bench: Bench, opened: Callable[..., Model]
    ) -> None:
        """Two open models of unlike weights, run in turns, give what each gives alone; closing one leaves the other."""
        other = bench.tiny(one.family, OTHER_SEED)
        with bench.open(one) as alone:
            mine = watch(alone.session, one.tokens).arrays
        with bench.open(other) as alone:
            its = watch(alone.session, one.tokens).arrays
        assert changed({"logits": mine["logits"]}, its), (
            "a second model of the same shape and other weights gave the same logits"
        )
        first, second = opened(one), opened(other)
        for _ in range(2):
            _same(mine, watch(first.session, one.tokens).arrays)
            _same(its, watch(second.session, one.tokens).arrays)
        second.close()
        try:
            after = watch(first.session, one.tokens).arrays
        except ModelOpenError as error:
            raise AssertionError(f"closing another session ended this one: {error}") from error
        _same(mine, after)

    def test_two_threads_do_not_meet(self, one: TinyModel, bench: Bench, opened: Callable[..., Model]) -> None:
        """Two sessions may run at the same time, each in a thread of its own, also where they hand over signals by turns."""
        models = [opened(one), opened(bench.tiny(one.family, OTHER_SEED))]
        alone = [watch(model.session, one.tokens).arrays for model in models]
        with ThreadPoolExecutor(2) as pool, _short_turns():
            both = threading.Barrier(2)
            together = [pool.submit(_often, model, one.tokens, both) for model in models]
            found = [each.result() for each in together]
        for expected, runs in zip(alone, found, strict=True):
            for arrays in runs:
                _same(expected, arrays)

    def test_another_thread_may_run_it(self, one: TinyModel, opened: Callable[..., Model]) -> None:
        """A model may be run on another thread than the one that opened it, as its first run and as its last."""
        first, second = opened(one), opened(one)
        expected = watch(first.session, one.tokens).arrays
        with ThreadPoolExecutor(1) as pool:
            for model, when in ((second, "first"), (first, "second")):
                try:
                    found = pool.submit(watch, model.session, one.tokens).result().arrays
                except Exception as error:
                    raise AssertionError(f"on another thread, its {when} run failed: {error}") from error
                _same(expected, found)

    def test_the_observer_is_called_on_the_callers_thread(self, model: Model, tiny: TinyModel) -> None:
        """`run` calls its observer on the thread that called `run`."""
        others: list[str] = []

        class Where(Watch):
            def signal(self, site: str, array: Array) -> None:
                if threading.get_ident() != here:
                    others.append(site)

        here = threading.get_ident()
        model.session.run(Request(tiny.tokens, whole(model.session, len(tiny.tokens))), Where())
        assert not others, f"the observer was called on another thread, with {', '.join(others[:5])}"

    def test_closing_ends(self, one: TinyModel, bench: Bench) -> None:
        """`close` returns in good time, twice; what runs afterwards is a `ModelOpenError`, not a crash."""
        model = bench.open(one)
        logits(model.session, one.tokens)
        failed: list[Exception] = []
        closing = threading.Thread(target=_close_twice, args=(model, failed), daemon=True)
        closing.start()
        closing.join(self.patience)
        assert not closing.is_alive(), f"close did not return within {self.patience:g} s"
        assert not failed, f"closing twice: {failed[0]}"
        try:
            logits(model.session, one.tokens)
        except ModelOpenError:
            return
        except Exception as error:
            raise AssertionError(f"run after it was closed, it raised {type(error).__name__}: {error}") from error
        raise AssertionError("it ran after it was closed")


@contextmanager
def _short_turns() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(TURNS)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


class _InStep(Watch):
    """Takes each signal when the other run has one too; goes on alone where the other does not come."""

    def __init__(self, both: threading.Barrier) -> None:
        super().__init__()
        self.both = both

    def signal(self, site: str, array: Array) -> None:
        with suppress(threading.BrokenBarrierError):
            self.both.wait(ALONE)
        super().signal(site, array)


def _often(model: Model, tokens: tuple[int, ...], both: threading.Barrier) -> list[dict[str, Array]]:
    seen = _InStep(both)
    model.session.run(Request(tokens, whole(model.session, len(tokens))), seen)
    return [seen.arrays, *(watch(model.session, tokens).arrays for _ in range(5))]


def _same(expected: dict[str, Array], found: dict[str, Array]) -> None:
    others = changed(expected, found)
    assert not others, f"beside another session, {others}"


def _close_twice(model: Model, failed: list[Exception]) -> None:
    try:
        model.close()
        model.close()
    except Exception as error:
        failed.append(error)
