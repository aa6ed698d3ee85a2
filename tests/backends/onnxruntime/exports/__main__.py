"""Make cells by hand: `python -m tests.backends.onnxruntime.exports EXPORTER ARCHITECTURE DIRECTORY`.

`all` stands for every exporter, or every architecture. One JSON line a cell; the exit status is 1 where one could not be made.
With `--install`, the virtual environment that an exporter needs is made first (`LLMTRACE_TEST_ENVIRONMENTS` says where).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from tests.backends.onnxruntime.exports.architectures import ARCHITECTURES
from tests.backends.onnxruntime.exports.cells import EXPORTERS, REWRITERS, export
from tests.backends.onnxruntime.exports.environment import install
from tests.backends.onnxruntime.exports.exporter import ExportError, NotInstalledError


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.backends.onnxruntime.exports")
    parser.add_argument("exporter", help=f"of {', '.join(EXPORTERS)}; with + and one of {', '.join(REWRITERS)}; or all")
    parser.add_argument("architecture", help=f"of {', '.join(ARCHITECTURES)}; or all; several with commas")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--install", action="store_true", help="make the virtual environment that an exporter needs")
    asked = parser.parse_args(arguments)
    exporters = list(EXPORTERS) if asked.exporter == "all" else asked.exporter.split(",")
    architectures = list(ARCHITECTURES) if asked.architecture == "all" else asked.architecture.split(",")
    failed = False
    for exporter in exporters:
        if asked.install:
            install(EXPORTERS[exporter.partition("+")[0]].needs)
        for architecture in architectures:
            start = time.monotonic()
            try:
                result = str(export(exporter, architecture, asked.directory))
            except NotInstalledError as error:
                result = f"skipped: {error}"
            except ExportError as error:
                result, failed = f"failed: {error}", True
            line = {"exporter": exporter, "architecture": architecture, "result": result}
            print(json.dumps({**line, "seconds": round(time.monotonic() - start, 1)}), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
