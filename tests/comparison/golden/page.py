"""What docs/compare-cases.md shows: commands, and lines of their answers.

A block of a case holds commands, after `$`, and what each prints, shortened: `…` stands for anything, in a line or in place of lines. **Held**: each
line is printed, in this order; its words and whole numbers are the same, and its other numbers nearly, as kernels round otherwise on
other processors.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

PAGE = Path(__file__).parents[3] / "docs" / "compare-cases.md"
BLOCK = re.compile(r"^```text\n(.*?)^```", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])\d+\.\d+(?:e[+-]\d+)?%?(?![\w.])")
NEAR, POINTS, NOISE = 0.3, 5.0, 1e-5
"""How near two numbers are, relatively; by how many points shares in per cent are, besides; and below what both are noise."""


@frozen
class Told:
    """One command of the page."""

    command: tuple[str, ...]
    """As a shell splits it."""
    answer: tuple[str, ...]
    """Lines of what it prints."""


def cases() -> dict[str, str]:
    """The page's sections by their heading."""
    parts = re.split(r"^## (.+)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def told(heading: str) -> list[Told]:
    """The commands of a section with their answers."""
    found = []
    for block in BLOCK.findall(cases()[heading]):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *answer = part.rstrip("\n").split("\n")
            found.append(Told(tuple(shlex.split(command)), tuple(filter(_telling, answer))))
    return found


def _telling(line: str) -> bool:
    return line.strip() not in ("", "…")


def missing(answer: Sequence[str], printed: str) -> list[str]:
    """The lines of an answer that were not printed, each after those before it."""
    lines = iter(printed.splitlines())
    return [line for line in answer if not _among(line, lines)]


def _among(line: str, printed: Iterator[str]) -> bool:
    return any(_alike(line, each) for each in printed)


def _alike(shown: str, printed: str) -> bool:
    """Whether a line of the page is one that was printed."""
    shown, printed = (" ".join(line.split()) for line in (shown, printed))
    pattern = re.escape(NUMBER.sub("#", shown)).replace("…", ".*").replace("\\#", f"({NUMBER.pattern})")
    found = re.fullmatch(pattern, printed)
    if found is None:
        return False
    return all(_near(a, b) for a, b in zip(NUMBER.findall(shown), found.groups(), strict=True))


def _near(a: str, b: str) -> bool:
    x, y = (float(each.rstrip("%")) for each in (a, b))
    points = POINTS if a.endswith("%") else math.inf
    return max(x, y) < NOISE or (math.isclose(x, y, rel_tol=NEAR) and abs(x - y) <= points)
