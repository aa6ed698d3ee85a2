"""Measure types and write their table: see the package for the words. One line a type is printed."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.benchmarks.coverage.apart import measured
from tests.benchmarks.coverage.counted import TYPES
from tests.benchmarks.coverage.page import alike, page, totals


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.coverage")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="types whose names hold one of these")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="default: one a core")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the table of all types there")
    asked = parser.parse_args(arguments)
    if asked.processes < 1:
        parser.error("it takes at least one process")
    if asked.write is not None and asked.only:
        parser.error("the page is of all types")
    kinds = [kind for kind in TYPES if not asked.only or any(word in kind for word in asked.only)]
    if not kinds:
        parser.error(f"no type has {' or '.join(asked.only)} in its name")
    outcomes = []
    for each in measured(kinds, asked.processes):
        outcomes.append(each)
        found = [word for word, holds in (("structural", each.structural), ("full", each.full)) if holds]
        print(f"{each.kind}: {', '.join([each.status, *found, *alike(each.why)])}", flush=True)
    print(", ".join(f"{name}: {number}" for name, number in totals(each for each in outcomes if each.counts).items()))
    if asked.write is not None:
        asked.write.write_text(page(outcomes), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
