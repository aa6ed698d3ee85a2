"""Each type in a process of its own, so that what one does to memory, time or a library's state is no other's matter."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch
import transformers

from tests.benchmarks.coverage.measure import measure
from tests.benchmarks.coverage.outcome import Outcome

SECONDS, BYTES = 120, 12 << 30
"""Of processor time, and of address space, that a type may take."""


def measured(kinds: Sequence[str], processes: int, *, seconds: int = SECONDS, size: int = BYTES) -> Iterator[Outcome]:
    """One outcome a type, as they come. The processes are forked from one in which nothing has run yet."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([measure.__module__])
    waiting = list(reversed(kinds))
    running: dict[Connection, tuple[str, BaseProcess]] = {}
    while waiting or running:
        while waiting and len(running) < processes:
            kind = waiting.pop()
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=_one, args=(kind, there, seconds), daemon=True)
            process.start()
            there.close()
            running[here] = kind, process
        for ready in wait(list(running)):
            assert isinstance(ready, Connection)
            kind, process = running.pop(ready)
            try:
                yield ready.recv()
            except EOFError:
                process.join()
                yield Outcome(kind, "stopped", why=(_died(process.exitcode or 0),))
            ready.close()
            process.join()


def _one(kind: str, answer: Connection, seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        answer.send(measure(kind))
    except Exception as error:
        answer.send(Outcome(kind, "stopped", why=(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",)))


def _died(code: int) -> str:
    if code == -signal.SIGXCPU:
        return "it took too long"
    return f"its process ended with {code}"
