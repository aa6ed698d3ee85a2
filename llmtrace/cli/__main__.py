"""`python -m llmtrace.cli` is `llmtrace`, where scripts are not on the path."""

from __future__ import annotations

from llmtrace.cli import main

main()
