"""Memory that is used again once nobody holds it. Pages that are made anew for every layer cost more than what is computed into them.

Who gets an array from here may keep it: while a view of it is alive, its memory is not handed out again.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from llmtrace.schema.sites import Array


class Reuse:
    """Arrays by shape and type."""

    def __init__(self) -> None:
        self._made: dict[tuple[tuple[int, ...], Any], list[Array]] = {}

    def take(self, shape: tuple[int, ...], dtype: Any, *, zeros: bool = False) -> tuple[Array, bool]:
        """An array, and whether it is new. One that was handed out before holds what was left in it; a new one any numbers, or `zeros`."""
        made = self._made.setdefault((shape, dtype), [])
        for place in range(len(made)):
            if _references(made, place) == UNHELD:
                return made[place], False
        array = np.zeros(shape, dtype) if zeros else np.empty(shape, dtype)
        made.append(array)
        return array, True


def _references(made: list[Array], place: int) -> int:
    return sys.getrefcount(made[place])


UNHELD = _references([np.empty(0)], 0)
"""What an array's references are counted as where it lies in a list and nowhere else."""
