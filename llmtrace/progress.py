"""**Progress**: whoever is told what is being done, since it takes time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str], None]
"""Called with what is being done, in words: `prompt 2 of 4`."""


def nothing_said(doing: str) -> None:
    """Tell nobody."""
