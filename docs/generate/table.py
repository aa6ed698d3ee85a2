"""Markdown tables and the notice that a page is generated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NOTICE = "<!-- Written by `python docs/generate` from the code's own tables: edit those, not this page. -->\n\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars inside cells are escaped."""
    lines = [list(head), ["---"] * len(head), *([cell.replace("|", "\\|") or " " for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def code(text: str) -> str:
    """Text in backticks, or nothing."""
    return f"`{text}`" if text else ""
