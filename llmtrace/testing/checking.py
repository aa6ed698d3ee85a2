"""Holds an installed backend to the conformance kit, as `llmtrace check-backend` does.

The tests run in a process of their own: where a runtime takes it down, that test has failed, and another process goes on with the rest.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from llmtrace import errors
from llmtrace.errors import BackendError, CapabilityError, OptionError
from llmtrace.plugins import BackendEntry, plugins
from llmtrace.testing.outcome import Check, Outcome

PATIENCE = 300.0
"""Seconds that one test may take."""
STARTING = 120.0
"""Seconds, at least, for what is no test: to import everything, to end."""
LEAVING = 5.0
"""Seconds for the process to leave by itself when all is told."""
OURS = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_DEBUG")
"""Settings of the caller's own tests, which are not to reach these."""


Progress = Callable[[Outcome, int, int], None]
"""Is told of each outcome, which it is, and of how many."""


def check(
    name: str,
    *,
    families: Sequence[str] = (),
    tests: Sequence[str] = (),
    patience: float = PATIENCE,
    progress: Progress = lambda outcome, done, of: None,
) -> Check:
    """Hold the installed backend `name` to the kit; `families` and `tests` (parts of names) narrow it, `patience` is in seconds a test.

    Raises `BackendNotFoundError` for a backend that is not there or broken, `CapabilityError` where there is no pytest, `PluginLoadError`
    where the plugin's own kit cannot be had, `OptionError` for a family or test that does not exist, `BackendError` where nothing could
    be begun.
    """
    plugins().backend(name)
    if find_spec("pytest") is None:
        raise CapabilityError(
            'The conformance kit needs pytest, which is not installed: pip install "llmtrace-core[testing]"'
        )
    entry, start = plugins().backends[name], time.perf_counter()
    with TemporaryDirectory(prefix="llmtrace-kit-", ignore_cleanup_errors=True) as place:
        told = _Told(families, tests, progress)
        while not told.finished:
            directory = Path(place) / str(len(told.begun))
            directory.mkdir()
            _one_process(name, directory, told, patience)
    order = [*told.laws, *(test for test, _ in told.nodes.values())]
    outcomes = sorted(told.outcomes.values(), key=lambda each: order.index(each.test))
    return Check(
        entry=entry,
        families=tuple(family for family in told.families if any(each.family == family for each in outcomes)),
        laws=told.laws,
        outcomes=tuple(outcomes),
        complete=not families and not tests,
        versions=_versions(entry),
        seconds=time.perf_counter() - start,
    )


class _Told:
    """What the processes have told so far."""

    def __init__(self, families: Sequence[str], tests: Sequence[str], progress: Progress) -> None:
        self.wanted, self.parts, self.progress = families, tests, progress
        self.families: list[str] = []
        self.laws: dict[str, str] = {}
        self.nodes: dict[str, tuple[str, str]] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.begun: list[str] = []
        self.finished = False

    def hear(self, event: str, about: dict[str, Any]) -> None:
        if event == "refused":
            raise getattr(errors, about["error"], errors.LLMTraceError)(about["message"])
        if event == "kit":
            self.families, self.laws = about["families"], about["laws"]
        elif event == "collected" and not self.nodes:
            self.nodes = {node: (test, family) for node, test, family in about["nodes"]}
            if not self.nodes:
                raise OptionError(
                    f"No test of the kit is called like {', '.join(self.parts)!r}: docs/reference/conformance.md lists them."
                )
        elif event == "started":
            self.begun.append(about["node"])
        elif event == "ended":
            self.end(**about)
        elif event == "finished":
            self.finished = bool(self.nodes) and len(self.outcomes) == len(self.nodes)

    def end(self, node: str, outcome: Any, kind: str, message: str, seconds: float) -> None:
        self.outcomes[node] = Outcome(*self.nodes[node], outcome, kind, message, seconds)
        self.progress(self.outcomes[node], len(self.outcomes), len(self.nodes))


def _one_process(name: str, directory: Path, told: _Told, patience: float) -> None:
    """Run what has not begun, until the end or the death of the process."""
    order = {
        "backend": name, "directory": str(directory), "families": list(told.wanted), "tests": list(told.parts), "done": told.begun,
    }  # fmt: skip
    before, start = len(told.begun), time.perf_counter()
    with (directory / "said").open("w+", encoding="utf-8", errors="replace") as said, _started(order, said) as process:
        late = _listen(process, told, patience)
        if told.finished:
            with suppress(subprocess.TimeoutExpired):  # what the backend left running is not waited for
                process.wait(LEAVING)
            return
        status = process.wait()
        said.seek(0)
        last = next((line.strip() for line in reversed(said.read().splitlines()) if line.strip()), "")
    died = f"no end within {patience:g} s" if late else _death(status)
    node = told.begun[-1] if len(told.begun) > before else ""
    if not node or node in told.outcomes:
        raise BackendError(f"The conformance kit could not be run on the backend {name}: {died}. {last}".rstrip())
    told.end(node, "failed", "", f"the process died: {died}", time.perf_counter() - start)
    told.finished = len(told.outcomes) == len(told.nodes)


def _listen(process: subprocess.Popen[str], told: _Told, patience: float) -> bool:
    """Hear it to the end; whether it was stopped because a test took too long."""
    late = threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    assert process.stdout is not None  # noqa: S101  it is a pipe
    watchdog = _after(max(patience, STARTING), stop)
    try:
        for line in process.stdout:
            watchdog.cancel()
            about = json.loads(line)
            event = about.pop("event")
            told.hear(event, about)
            if told.finished:
                break
            watchdog = _after(patience if event == "started" else max(patience, STARTING), stop)
    finally:
        watchdog.cancel()
    return late.is_set()


def _after(seconds: float, act: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
    return timer


@contextmanager
def _started(order: dict[str, Any], said: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """The process, which is gone afterwards, whatever happens."""
    kept = {key: value for key, value in os.environ.items() if key not in OURS}
    path = os.pathsep.join(str(Path(place).absolute()) for place in sys.path)
    process = subprocess.Popen(  # noqa: S603  our own module
        [sys.executable, "-m", "llmtrace.testing.kit_process", json.dumps(order)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, text=True, encoding="utf-8", cwd=order["directory"],
        env=kept | {"PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _death(status: int) -> str:
    if status < 0:
        with suppress(ValueError):
            return signal.Signals(-status).name
    return f"exit status {status}"


def _versions(entry: BackendEntry) -> dict[str, str]:
    """Of the core, the backend, and what it needs."""
    names = dict.fromkeys(
        ["llmtrace-core", entry.distribution, *(entry.backend.distributions if entry.backend is not None else ())]
    )
    found = {}
    for name in filter(None, names):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
