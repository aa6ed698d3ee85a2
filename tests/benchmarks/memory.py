"""The most memory that a run needs: `python -m tests.benchmarks.memory MODEL [--backend NAME] [-o NAME=VALUE …] [--tokens N]`.

**Peak**: the largest resident set of a process that opens the model and does one thing, beside that of one which asks for the logits alone.
Each is a process of its own, since memory that was once taken is seldom given back.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import llmtrace
from llmtrace.model import Model
from tests.benchmarks.tracing import Nobody

RUNS: dict[str, Callable[[Model, list[int]], object]] = {
    "logits": lambda model, ids: model.stream(ids, Nobody(), "logits"),
    "resid_post of every block, streamed": lambda model, ids: model.stream(ids, Nobody(), "blocks.*.resid_post"),
    "everything, streamed": lambda model, ids: model.stream(ids, Nobody(), list(model.session.offers)),
    "everything, kept in a trace": lambda model, ids: model.trace(
        ids, capture=list(model.session.offers), max_bytes=None
    ),
    "verify": lambda model, ids: list(model.verify(ids)),
}
MIB = 1 << 20


def main() -> None:
    """Print a table, or with `--run` the two numbers of one row."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.memory", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--backend")
    parser.add_argument("-o", dest="options", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--preset", default="exact")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--run", choices=RUNS, help="measure this one here")
    given = parser.parse_args()
    if given.run:
        options = dict(option.split("=", 1) for option in given.options)
        with llmtrace.open(given.model, backend=given.backend, preset=given.preset, options=options) as model:
            ids = np.random.default_rng(0).integers(0, model.spec.vocab, given.tokens).tolist()
            RUNS[given.run](model, ids)
            handed = model.plan(model.tokens(ids), list(model.session.offers)).bytes
        print(json.dumps([peak(), handed]))
        return
    base, handed = measured(sys.argv[1:], "logits")
    print(f"{given.tokens} tokens; everything is {handed / MIB:,.0f} MiB\n{'':40} {'peak':>8} {'over logits':>12}")
    for name in RUNS:
        most, _ = measured(sys.argv[1:], name)
        print(f"{name:40} {most / MIB:6,.0f} MiB {(most - base) / MIB:8,.0f} MiB", flush=True)


def measured(arguments: Sequence[str], run: str) -> tuple[int, int]:
    """Bytes of one run's peak, and of all that the model hands out."""
    command = [sys.executable, "-m", "tests.benchmarks.memory", *arguments, "--run", run]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  # ourselves
    most, handed = json.loads(done.stdout.splitlines()[-1])
    return most, handed


def peak() -> int:
    """Bytes of this process's largest resident set."""
    status = Path("/proc/self/status")
    if status.exists():  # what `resource` says is never below the parent's
        found = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(found.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
