"""What is known of one cell, as it is kept on disk: one JSON line each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from attrs import asdict, field, frozen

Status = Literal["measured", "not exported", "refused"]
COARSE = ("genai-fp16", "genai-int4", "fp16", "int4", "int8")
"""Exporters and rewriters after which the weights are others."""


@frozen
class Cell:
    """One exporter's graph of one architecture."""

    exporter: str
    architecture: str
    status: Status
    """`not exported`: the exporter fails; `refused`: the graph does not open, or not run."""
    why: str = ""
    """The reason of a status that is not `measured`."""
    applicable: int = 0
    """Sites of the checkpoint's spec."""
    captured: int = 0
    """Of them: handed out by the session."""
    derived: int = 0
    """Of them: derived by the core."""
    equal: int = 0
    """Of them: within 1e-5 of PyTorch, or, of a coarse graph, following from its own weights."""
    worst: float = 0.0
    """The largest relative error of those that are equal."""
    differs: tuple[str, ...] = ()
    """What the graph computes otherwise than the checkpoint, field by field."""
    missed: dict[str, str] = field(factory=dict)
    """Site to why it is not there."""
    unequal: dict[str, float] = field(factory=dict)
    """Site to its relative error; of a coarse graph, of what does not follow."""
    seconds: float = 0.0
    """To open it."""

    @property
    def name(self) -> tuple[str, str]:
        """Exporter and architecture."""
        return self.exporter, self.architecture

    @property
    def located(self) -> int:
        """Handed out or derived."""
        return self.captured + self.derived


def coarse(exporter: str) -> bool:
    """Whether an exporter's weights are others than the checkpoint's."""
    base, _, rewriter = exporter.partition("+")
    return base.startswith(COARSE) or rewriter in COARSE


def read(path: Path) -> dict[tuple[str, str], Cell]:
    """The cells of a file, the last line of each; none where there is no file."""
    if not path.exists():
        return {}
    found = (Cell(**_tuples(json.loads(line))) for line in path.read_text(encoding="utf-8").splitlines())
    return {cell.name: cell for cell in found}


def append(path: Path, cells: Iterable[Cell]) -> None:
    """Add lines; a process that is stopped loses none that are there."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(cell)) + "\n" for cell in cells)


def _tuples(line: dict[str, Any]) -> dict[str, Any]:
    return line | {"differs": tuple(line["differs"])}
