"""What became of one fault in one column, kept in a file of one line each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import cattrs
from attrs import frozen

Status = Literal["found", "below", "missed", "wrong", "not planted"]
"""`found`: the first divergent site is the planted one; `below`: it is less than the precision explains, and nothing was named; `missed`: it is
more, and nothing was named; `wrong`: another site was named first."""


@frozen
class Outcome:
    """One cell of the table."""

    fault: str
    column: str
    status: Status
    expected: str = ""
    """The site that should be named first."""
    first: str = ""
    """The site that was."""
    visible: bool = False
    """Whether the fault is larger than what the precision explains."""
    named: bool = False
    """Whether the cause was named."""
    cause: str = ""
    """What was said, or why the fault was not planted."""
    size: float = 0.0
    """The relative error at the site, in float32."""
    tolerance: float = 0.0
    """What the column's rounding explains there."""


def read(path: Path) -> dict[tuple[str, str], Outcome]:
    """What was measured, the last of each cell."""
    if not path.exists():
        return {}
    found = [cattrs.structure(json.loads(line), Outcome) for line in path.read_text("utf-8").splitlines()]
    return {(each.fault, each.column): each for each in found}


def append(path: Path, outcome: Outcome) -> None:
    """Keep one."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(cattrs.unstructure(outcome)) + "\n")
