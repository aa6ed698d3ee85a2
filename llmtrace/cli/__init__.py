"""The command line. Thin: each command parses, calls the public API, and prints. `llmtrace.cli:main` is the entry point."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line on `args` (default: those of the process) and exit with its code."""
    from llmtrace.cli.app import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the terminal's encoding cannot say is escaped
            stream.reconfigure(errors="backslashreplace")
    app.main(None if args is None else list(args), prog_name="llmtrace")
