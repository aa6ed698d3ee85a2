"""Every check, in one command: `python -m tests`, or some by name: `python -m tests lint types`.

Stops at the first that fails, prints a summary, and exits with its status.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
WORKERS = str(min(os.cpu_count() or 1, 4))
CHECKS: dict[str, list[str]] = {
    "lint": [PYTHON, "-m", "ruff", "check", "."],
    "format": [PYTHON, "-m", "ruff", "format", "--check", "."],
    "types": [PYTHON, "-m", "mypy"],
    "tests": [PYTHON, "-m", "pytest", "-q", "-n", WORKERS, "--dist", "loadfile"],
}
QUIET = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""One thread a worker: tiny models gain nothing from more, and workers would fight over the cores."""


def main(wanted: list[str]) -> int:
    """Run the checks; the exit status of the first that fails, or 0."""
    unknown = [name for name in wanted if name not in CHECKS]
    if unknown:
        print(f"There is no check {', '.join(unknown)}; there are {', '.join(CHECKS)}.", file=sys.stderr)
        return 2
    status, lines = 0, []
    for name in wanted or CHECKS:
        print(f"== {name}: {' '.join(CHECKS[name][1:])}", flush=True)
        start = time.monotonic()
        status = subprocess.run(
            CHECKS[name], cwd=ROOT, env={**os.environ, **QUIET}, stdin=subprocess.DEVNULL, check=False
        ).returncode
        lines.append(f"{name:8} {'failed' if status else 'passed'} {time.monotonic() - start:6.0f} s")
        if status:
            break
    print("== summary", *lines, sep="\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
