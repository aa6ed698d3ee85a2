"""Write the reference pages from the tables that the code itself reads.

`python docs/generate` writes the pages whose text has changed; with `--check` it writes nothing, names the stale ones and exits with 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

import backends
import commands
import comparison
import conformance
import methods
import names
import records
import sites

HERE = Path(__file__).resolve().parent.parent / "reference"
PAGES = {
    "sites.md": sites.page,
    "spec.md": records.page,
    "names.md": names.page,
    "methods.md": methods.page,
    "backends.md": backends.page,
    "cli.md": commands.page,
    "comparison.md": comparison.page,
    "conformance.md": conformance.page,
}


def main(check: bool) -> int:
    """Write or compare every page; the exit status."""
    stale = 0
    for name, page in PAGES.items():
        path, text = HERE / name, page()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        print(f"{name} is stale: run python docs/generate" if check else f"wrote {name}")
        if not check:
            path.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
