"""One process that measures: interleaved rounds, and the most memory of each run. It prints one line of JSON.

`python -m tests.benchmarks.performance.timed CHECKPOINT --tokens N [--rounds N] [--clock …] [--peer NAME] [--peaks]`
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import attrs

from tests.benchmarks.paired import paired
from tests.benchmarks.performance.memory import most
from tests.benchmarks.performance.opened import open_model, prompt
from tests.benchmarks.performance.peers import PEERS
from tests.benchmarks.performance.runs import BESIDE, EAGER, RUNS, sizes_of

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--peer", choices=PEERS)
    parser.add_argument("--peaks", action="store_true")
    asked = parser.parse_args()
    import transformers

    transformers.utils.logging.disable_progress_bar()
    with ExitStack() as stack:
        model = stack.enter_context(open_model(asked.checkpoint, asked.threads))
        ids = prompt(model, asked.tokens)
        names = BESIDE if asked.peer else [name for name in RUNS if not asked.only or name in (*asked.only, "bare")]
        found: Mapping[str, Callable[[], object]] = {name: RUNS[name].go(model, ids) for name in names}
        if asked.peer:
            eager = stack.enter_context(open_model(asked.checkpoint, asked.threads, "eager"))
            found = {
                **found,
                EAGER: RUNS["sixteen, kept"].go(eager, ids),
                **PEERS[asked.peer].runs(asked.checkpoint, ids),
            }
        ratios = paired(f"{asked.tokens} tokens", found, asked.rounds, CLOCKS[asked.clock])
        sizes = {name: sum(sizes_of(model, ids, RUNS[name].capture)) for name in names if RUNS[name].looks}
        document = {"ratios": [attrs.asdict(ratio) for ratio in ratios], "version": "", "sizes": sizes, "peaks": {}}
        if asked.peaks:
            document["peaks"] = {name: most(run) for name, run in found.items()}
        if asked.peer:
            document["version"] = version(PEERS[asked.peer].distribution)
        print(json.dumps(document))


if __name__ == "__main__":
    main()
