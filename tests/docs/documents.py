"""The documents of the project, and the code in them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {"plugins.md"}
"""Pages that only include another one."""


def documents() -> list[Path]:
    """Every Markdown file that people read."""
    pages = [page for page in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in page.parts]
    return [ROOT / "README.md", ROOT / "plugins.md", *(page for page in pages if page.name not in SKIPPED)]


def headings(path: Path) -> list[str]:
    """The headings of a Markdown file, outside its code blocks."""
    fenced, found = False, []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif line.startswith("#") and not fenced:
            found.append(line.lstrip("#").strip())
    return found
