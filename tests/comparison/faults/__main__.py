"""Measure faults and write their table: see the package for the words.

One line a cell is printed. The exit status is 1 where less than the goals is found.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from tests.comparison.faults.bases import BASES, READS
from tests.comparison.faults.columns import COLUMNS, OTHERS, NotPlantedError
from tests.comparison.faults.measure import Bench, clean, measure, shown
from tests.comparison.faults.outcome import append, read
from tests.comparison.faults.page import Totals, page, totals
from tests.comparison.faults.rows import FAULTS

FOUND, NAMED = 0.95, 0.8
"""Goals: of the faults above the precision, the right site first; of the sites that were found, the cause named."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.comparison.faults")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="faults whose names hold one of these")
    parser.add_argument("--columns", nargs="+", default=list(COLUMNS), metavar="COLUMN")
    parser.add_argument(
        "--kept", type=Path, metavar="FILE", help="keep cells there; those that are there stay as they are"
    )
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the table of all faults there")
    asked = parser.parse_args(arguments)
    if asked.write is not None and (asked.only or set(asked.columns) != set(COLUMNS)):
        parser.error("the page is of all faults in all columns")
    warnings.simplefilter("ignore")
    outcomes = {} if asked.kept is None else read(asked.kept)
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(Path(place))
        for fault in FAULTS:
            if asked.only and not any(part in fault.name for part in asked.only):
                continue
            if all((fault.name, column) in outcomes for column in asked.columns):
                continue
            for outcome in measure(bench, fault, tuple(asked.columns)):
                outcomes[outcome.fault, outcome.column] = outcome
                print(shown(outcome), flush=True)
                if asked.kept is not None:
                    append(asked.kept, outcome)
        if asked.write is not None:
            right = dict(conversions(bench))
            asked.write.write_text(page(FAULTS, outcomes, right), encoding="utf-8")
        bench.close()
    return int(not _good(totals(outcomes.values())))


def conversions(bench: Bench, columns: tuple[str, ...] = (*COLUMNS, *OTHERS)) -> Iterator[tuple[tuple[str, str], str]]:
    """The verdicts of right conversions, by base and column."""
    for base in BASES:
        for column in columns:
            if base == READS:
                continue
            try:
                candidate = clean(bench, base, column)
            except NotPlantedError:
                continue
            if candidate.verdict == "diverges":
                print(f"{column} | {base} | FALSE ALARM | {candidate.headline}", flush=True)
            yield (base, column), candidate.verdict


def _good(t: Totals) -> bool:
    return t.found >= FOUND * t.above and t.passed == t.below and t.named >= NAMED * t.right


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
