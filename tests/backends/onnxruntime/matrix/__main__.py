"""Measure cells and write their table: see the package for the words.

Cells that were measured stand in `DIR/matrix.jsonl` and are not measured again, unless `--again`. One line a cell is printed; the exit status
is 1 where less than 95 % of the applicable sites are located and equal.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.backends.onnxruntime.exports import ARCHITECTURES, REWRITERS
from tests.backends.onnxruntime.exports.smollm2 import NAME
from tests.backends.onnxruntime.matrix.cell import Cell, append, coarse, read
from tests.backends.onnxruntime.matrix.measure import Known, known, measure
from tests.backends.onnxruntime.matrix.page import page, share

EXPORTERS = (
    "torchscript",
    "torchscript-sdpa",
    "torchscript-past",
    "torchscript-last",
    "dynamo-18",
    "dynamo-23-sdpa",
    "genai-fp32",
    "genai-fp16",
    "genai-int4",
    "genai-int4-qdq",
    "optimum",
    "optimum-past",
)
"""The columns of the table, without rewriters."""
GOAL = 0.95
"""Of the applicable sites of the graphs that open, located and equal."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.backends.onnxruntime.matrix")
    parser.add_argument(
        "exporters", nargs="*", metavar="EXPORTER", help="default: all, and the rewrites that are there"
    )
    parser.add_argument("--arch", nargs="+", default=list(ARCHITECTURES), metavar="A", help="default: all but SmolLM2")
    parser.add_argument("--from", dest="directory", type=Path, default=Path(".exports"), metavar="DIR")
    parser.add_argument("--made", action="store_true", help="only graphs that are there: none is exported")
    parser.add_argument("--again", action="store_true", help="measure again what was measured")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="write the table of all that was ever measured there"
    )
    asked = parser.parse_args(arguments)
    if unknown := set(asked.arch) - {*ARCHITECTURES, NAME}:
        parser.error(f"there is no architecture {', '.join(sorted(unknown))}; there are {', '.join(ARCHITECTURES)}")
    kept = asked.directory / "matrix.jsonl"
    done = read(kept)
    for architecture in asked.arch:
        by_torch: Known | None = None
        for exporter in asked.exporters or _columns(asked.directory):
            made = (asked.directory / exporter / architecture / "model.onnx").exists()
            if ((exporter, architecture) in done and not asked.again) or (asked.made and not made):
                continue
            by_torch = by_torch or known(architecture, asked.directory)
            cell = measure(exporter, architecture, asked.directory, by_torch)
            append(kept, [cell])
            done[cell.name] = cell
            print(_line(cell), flush=True)
    if asked.write is not None:
        asked.write.write_text(
            page(list(done.values()), asked.exporters or _columns(asked.directory)), encoding="utf-8"
        )
    wanted = [cell for cell in done.values() if cell.architecture in asked.arch and not coarse(cell.exporter)]
    return int(share(wanted) < GOAL)


def _columns(directory: Path) -> list[str]:
    """The exporters, and each with the rewriters that something was made by."""
    rewritten = [f"{base}+{rewriter}" for base in EXPORTERS for rewriter in REWRITERS]
    return [*EXPORTERS, *(name for name in rewritten if (directory / name).exists())]


def _line(cell: Cell) -> str:
    """A cell in a line, and what is wrong with it."""
    said = f"{cell.exporter} {cell.architecture}: "
    if cell.status != "measured":
        return f"{said}{cell.status}: {cell.why}"
    said += (
        f"{cell.captured}+{cell.derived} of {cell.applicable}, {cell.equal} equal, {cell.worst:.0e}, {cell.seconds} s"
    )
    return "; ".join([said, *cell.differs, *_few(cell.missed), *_few(cell.unequal)])


def _few(sites: dict[str, str] | dict[str, float]) -> list[str]:
    return [f"{site}: {why}" for site, why in list(sites.items())[:3]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
