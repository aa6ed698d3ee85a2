"""`python -m tests.benchmarks [--rounds N] [--json FILE] [--onnx PATH …] [imports | equations | tracing | llamacpp | onnxruntime | compare …]`."""

from __future__ import annotations

import argparse
import json
import os
import platform
from functools import partial
from importlib.metadata import version
from pathlib import Path

import attrs

from tests.benchmarks import compare, equations, imports, llamacpp, onnxruntime, tracing
from tests.benchmarks.paired import Ratio

GROUPS = {
    "imports": imports.measure,
    "equations": equations.measure,
    "tracing": tracing.measure,
    "llamacpp": llamacpp.measure,
    "onnxruntime": onnxruntime.measure,
    "compare": compare.measure,
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], default=list(GROUPS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("build/benchmarks.json"))
    parser.add_argument("--onnx", type=Path, action="append", default=[], help="a model of the group onnxruntime")
    options = parser.parse_args()
    found: list[Ratio] = []
    for group in options.groups:
        measure = partial(onnxruntime.measure, models=options.onnx) if group == "onnxruntime" else GROUPS[group]
        for ratio in measure(options.rounds):
            if not found or ratio.group != found[-1].group:
                print(f"\n{ratio.group}, {ratio.rounds} interleaved rounds\n{'':36} {'ms':>9} {'ratio':>7}  range")
            found.append(ratio)
            print(
                f"{ratio.name:36} {1000 * ratio.seconds:9.1f} {ratio.ratio:7.2f}  {ratio.low:.2f} … {ratio.high:.2f}",
                flush=True,
            )
    timed = {ratio.name: ratio.seconds for ratio in found}
    if "every public name" in timed:
        added = timed["every public name"] - timed["import numpy"]
        print(
            f"\nEvery public name adds {1000 * added:.0f} ms to import numpy (aim: under {1000 * imports.LIMIT:.0f} ms)."
        )
    machine = {
        "python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count(),
        "versions": {name: version(name) for name in ("numpy", "llmtrace-core")},
    }  # fmt: skip
    options.json.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine, "measurements": [attrs.asdict(ratio) for ratio in found]}
    options.json.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(f"\nwrote {options.json}")


if __name__ == "__main__":
    main()
