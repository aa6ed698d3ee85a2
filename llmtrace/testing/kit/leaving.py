"""Leaving: what a model that was opened, run and closed leaves behind, which is nothing. **Process**: what all code in it shares."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np

from llmtrace.model import Model
from llmtrace.protocol import Request
from llmtrace.schema.sites import Array
from llmtrace.testing.kit.base import Bench, Kit
from llmtrace.testing.kit.running import watch, whole
from llmtrace.testing.model import TinyModel

ROUNDS = 30
"""How often a run is repeated to see whether memory grows."""
OPENINGS = 12
"""How often a model is opened and closed to see the same."""
UNOPENED = 2
"""Seed of a model that no other test has opened: what a backend puts beside it, it has not put there yet."""


class LeavingKit(Kit):
    """What is there afterwards."""

    def test_nothing_leaks(self, one: TinyModel, bench: Bench) -> None:
        """Opening, running and closing leaves no file open and no thread running; running again takes no more memory."""
        for _ in range(2):  # what a runtime makes once a process is no leak
            _come_and_go(bench, one)
        files, threads = _open_files(), _threads()
        for _ in range(3):
            _come_and_go(bench, one)
        left = _open_files() - files
        assert left <= 0, f"{left} files are still open after 3 openings"
        left = _threads() - threads
        assert left <= 0, f"{left} threads are still running after 3 openings"
        with bench.open(one) as model:
            tokens = one.tokens * max(1, 64 // len(one.tokens))
            tokens = tokens[: model.spec.context]
            cuts = whole(model.session, len(tokens))
            handed = sum(size for *_, size in watch(model.session, tokens, cuts).handed)
            grown = _growth(lambda: watch(model.session, tokens, cuts), ROUNDS)
        assert grown < ROUNDS * handed / 2, f"{ROUNDS} runs that hand over {handed:,} bytes each took {grown:,} more"

    def test_nothing_handed_over_is_kept(self, one: TinyModel, opened: Callable[..., Model]) -> None:
        """What a run handed over is gone when the run is over, unless it is memory that every run uses again. (Of memory that is not
        NumPy's own, and of copies, nothing can be seen here.)"""
        model = opened(one)
        first, second = _Traces(), _Traces()
        for seen in (first, second):
            model.session.run(Request(one.tokens, whole(model.session, len(one.tokens))), seen)
        gc.collect()
        used_again = {id(owner) for _, owner in first.alive()}
        left = [site for site, owner in second.alive() if id(owner) not in used_again]
        assert not left, f"after the run, the session still keeps {', '.join(left[:5])}"

    def test_closed_models_take_no_memory(self, one: TinyModel, bench: Bench) -> None:
        """A model that was closed is gone, with its weights."""
        size = sum(weight.nbytes for weight in one.weights.values())
        grown = _growth(lambda: _come_and_go(bench, one), OPENINGS)
        assert grown < OPENINGS * size / 2, (
            f"a model of {size:,} bytes that was opened and closed {OPENINGS} times took {grown:,} more"
        )

    def test_nothing_around_the_model_changes(self, one: TinyModel, bench: Bench) -> None:
        """The model's files, the environment, the working directory, random numbers, `sys.path`, signal handlers and NumPy's handling
        of errors stay as they were. (What a runtime sets when it is first imported is not looked at.)"""
        _come_and_go(bench, one)
        other = bench.tiny(one.family, UNOPENED)
        place = Path(bench.source(other))
        with _unusual():
            files, process = _files(place), _process()
            _come_and_go(bench, other)
            now = _process()
        assert (found := _difference(files, _files(place))) == "", f"among the model's files, {found} changed"
        for what, before in process.items():
            assert (found := _difference(before, now[what])) == "", f"{what}: {found} changed"


class _Traces:
    """An observer that holds on to nothing, and knows what of it others hold."""

    def __init__(self) -> None:
        self.owners: list[tuple[str, weakref.ref[Array]]] = []

    def signal(self, site: str, array: Array) -> None:
        """Of a view, the array whose memory it is."""
        owner: object = array
        while isinstance(owner, np.ndarray) and owner.base is not None:
            owner = owner.base
        if isinstance(owner, np.ndarray):
            self.owners.append((site, weakref.ref(owner)))

    def layer_done(self, layer: int) -> None:
        """Nothing."""

    def alive(self) -> Iterator[tuple[str, Array]]:
        """What is still there."""
        return ((site, owner) for site, ref in self.owners if (owner := ref()) is not None)


def _come_and_go(bench: Bench, tiny: TinyModel) -> None:
    with bench.open(tiny) as model:
        watch(model.session, tiny.tokens)
    gc.collect()


def _growth(act: Callable[[], object], rounds: int) -> int:
    """By how many bytes this process grows while it does something again and again."""
    for _ in range(rounds // 3):
        act()
    gc.collect()
    before = _resident()
    for _ in range(rounds):
        act()
    gc.collect()
    return _resident() - before


@contextmanager
def _unusual() -> Iterator[None]:
    """Settings that nobody else would choose, so that who sets his own is seen."""
    state, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002  what a runtime may touch
    random.seed(20_250_101)
    np.random.seed(20_250_101)  # noqa: NPY002
    try:
        with np.errstate(over="raise"):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(legacy)  # noqa: NPY002


def _process() -> dict[str, Mapping[str, object]]:
    return {
        "the environment": dict(os.environ),
        "the working directory": {str(Path.cwd()): None},
        "random numbers": {"Python's": random.getstate(), "NumPy's": str(np.random.get_state())},  # noqa: NPY002
        "the path of imports": dict.fromkeys(sys.path),
        "signal handlers": {each.name: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)},
        "NumPy's handling of errors": dict(np.geterr()),
    }


def _difference(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    names = sorted({*before, *after})
    return ", ".join(name for name in names if (name in before, before.get(name)) != (name in after, after.get(name)))


def _files(place: Path) -> dict[str, object]:
    """Digests of the model's files, by name."""
    found = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    return {str(path.relative_to(place.parent)): sha256(path.read_bytes()).hexdigest() for path in found}


def _open_files() -> int:
    """How many files this process has open; 0 where the system does not say."""
    place = Path("/proc/self/fd") if Path("/proc/self/fd").is_dir() else Path("/dev/fd")
    return len(list(place.iterdir())) if place.is_dir() else 0


def _threads() -> int:
    """How many threads this process has, a runtime's own included where the system says so."""
    place = Path("/proc/self/task")
    return len(list(place.iterdir())) if place.is_dir() else threading.active_count()


def _resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    file = Path("/proc/self/statm")
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None) if file.exists() else None:
        trim(0)  # what was freed goes back to the system: a leak could hide in it
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if file.exists() else 0
