"""Backends whose sessions know of each other, do not end, or leave something behind."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import ClassVar

import numpy as np

from tests.meta.honest import Between, Honest, HonestSession
from tests.meta.lie import Lie


class LatestWeights(HonestSession):
    """The weights of the model that was opened last, for all."""

    def __init__(self, *all):
        super().__init__(*all)
        type(self).latest = self._equations

    def run(self, request, observer):
        self._equations = type(self).latest
        super().run(request, observer)


class FirstWeights(HonestSession):
    """A cache by architecture: a second model of the same shape runs on the weights of the first."""

    known: ClassVar[dict] = {}

    def __init__(self, *all):
        super().__init__(*all)
        self._equations = type(self).known.setdefault(self.spec, self._equations)


class EndsAll(HonestSession):
    """Closing one model closes the others."""

    alive: ClassVar[list] = []

    def __init__(self, *all):
        super().__init__(*all)
        self.alive.append(self)

    def close(self):
        for session in self.alive:
            HonestSession.close(session)
        self.alive.clear()


class GlobalObserver(HonestSession):
    """Signals go to the observer of the run that began last."""

    def run(self, request, observer):
        Current.latest = observer
        super().run(request, Current(observer))


class Current(Between):
    """Passes on to the latest."""

    latest = None

    def signal(self, site, array):
        Current.latest.signal(site, array)

    def layer_done(self, layer):
        Current.latest.layer_done(layer)


class StaysAtHome(HonestSession):
    """Can be run on the thread that opened it only."""

    def __init__(self, *all):
        super().__init__(*all)
        self.home = threading.get_ident()

    def run(self, request, observer):
        if threading.get_ident() != self.home:
            raise RuntimeError("there is no stream in the current thread")
        super().run(request, observer)


class Hangs(HonestSession):
    def close(self):
        time.sleep(5)


class RunsOn(HonestSession):
    """Can be run after it was closed."""

    def close(self):
        pass


class ClosesOnce(HonestSession):
    def close(self):
        if self._closed:
            raise ValueError("freed twice")
        super().close()


class CrashesClosed(HonestSession):
    """Running it after closing ends in an error of its own making."""

    def run(self, request, observer):
        if self._closed:
            raise AttributeError("'NoneType' object has no attribute 'forward'")
        super().run(request, observer)


class KeepsFile(HonestSession):
    files: ClassVar[list] = []

    def __init__(self, *all):
        super().__init__(*all)
        self.files.append(os.open(Path(self.info.source) / "config.json", os.O_RDONLY))


class KeepsThread(HonestSession):
    end = threading.Event()

    def __init__(self, *all):
        super().__init__(*all)
        threading.Thread(target=self.end.wait, daemon=True).start()


class KeepsSignals(HonestSession):
    """Every run's signals stay in memory."""

    def __init__(self, *all):
        super().__init__(*all)
        self.kept = []

    def hand(self, site, array):
        self.kept.append(array.copy())
        return array

    def close(self):
        self.kept = []
        super().close()


class KeepsLast(HonestSession):
    """What the last run handed over stays until the next."""

    def run(self, request, observer):
        self.last = {}
        super().run(request, observer)

    def hand(self, site, array):
        self.last[site] = array
        return array


class KeepsWeights(HonestSession):
    """Every model that was ever opened stays in memory."""

    kept: ClassVar[list] = []

    def close(self):
        self.kept.append([weight.copy() for weight in self.weights.values()])
        super().close()


class WritesBeside(Honest):
    """Puts a file of its own into the model's directory."""

    @classmethod
    def open(cls, source, options):
        session = super().open(source, options)
        (Path(source) / "model.cache").write_bytes(b"converted")
        return session


class Ambient(HonestSession):
    """Seeds the whole process."""

    def run(self, request, observer):
        np.random.seed(0)  # noqa: NPY002  the fault
        super().run(request, observer)


class AmbientErrors(HonestSession):
    """Turns off the warnings of whoever uses NumPy."""

    def __init__(self, *all):
        super().__init__(*all)
        np.seterr(all="ignore")


class Environment(HonestSession):
    """Sets a variable of the environment, and leaves it."""

    def __init__(self, *all):
        super().__init__(*all)
        os.environ["OMP_NUM_THREADS"] = str(1 + int(os.environ.get("OMP_NUM_THREADS", "1")))


SESSIONS, LEAKS, CLOSING = "test_two_sessions_know_nothing_of_each_other", "test_nothing_leaks", "test_closing_ends"
AROUND = "test_nothing_around_the_model_changes"
LIES = [
    Lie(
        "the last opened model's weights serve all",
        LatestWeights,
        SESSIONS,
        r"beside another session, embed is not what it was",
    ),
    Lie(
        "the first opened model's weights serve all of its shape",
        FirstWeights,
        SESSIONS,
        r"other weights gave the same logits",
    ),
    Lie("closing one closes all", EndsAll, SESSIONS, r"closing another session ended this one"),
    Lie(
        "threads share the observer",
        GlobalObserver,
        "test_two_threads_do_not_meet",
        r"beside another session, \S+ (is not what it was|did not come)",
    ),
    Lie(
        "only the thread that opened it runs it",
        StaysAtHome,
        "test_another_thread_may_run_it",
        r"on another thread, its first run failed.*no stream",
    ),
    Lie("close hangs", Hangs, CLOSING, r"close did not return within"),
    Lie("it runs after it was closed", RunsOn, CLOSING, r"ran after it was closed"),
    Lie("closing twice fails", ClosesOnce, CLOSING, r"closing twice.*freed twice"),
    Lie("an untyped error after closing", CrashesClosed, CLOSING, r"after it was closed, it raised AttributeError"),
    Lie("a file stays open", KeepsFile, LEAKS, r"files are still open"),
    Lie("a thread stays", KeepsThread, LEAKS, r"threads are still running"),
    Lie("signals stay in memory", KeepsSignals, LEAKS, r"runs that hand over .* took"),
    Lie("the last run's signals stay", KeepsLast, "test_nothing_handed_over_is_kept", r"still keeps embed"),
    Lie("weights stay in memory", KeepsWeights, "test_closed_models_take_no_memory", r"opened and closed .* took"),
    Lie("a file appears beside the model", WritesBeside, AROUND, r"model\.cache"),
    Lie("the process's random numbers are seeded", Ambient, AROUND, r"random numbers"),
    Lie("NumPy's errors are turned off", AmbientErrors, AROUND, r"NumPy's handling of errors"),
    Lie("the environment changes", Environment, AROUND, r"OMP_NUM_THREADS"),
]
