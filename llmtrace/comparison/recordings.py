"""The reference's signals of many prompts. **Room**: bytes of them that are kept; what does not fit is run again when it is asked for, one prompt
at a time, which takes less than judging it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from llmtrace.schema.evaluate import Signals
from llmtrace.schema.sites import Array

ROOM = 1 << 30


class Recordings:
    """Signals by the number of their prompt."""

    def __init__(self, again: Callable[[int], Signals], room: int = ROOM) -> None:
        """`again` runs a prompt once more."""
        self._again = again
        self._room = room
        self._kept: dict[int, Signals] = {}
        self._last: tuple[int, Signals] | None = None

    def add(self, number: int, signals: Signals) -> Signals:
        """A view of one prompt's signals, which does not keep them alive where there is no room."""
        size = sum(array.nbytes for array in signals.values())
        if size <= self._room:
            self._room -= size
            self._kept[number] = signals
        return _Recorded(self, number, tuple(signals))

    def __getitem__(self, number: int) -> Signals:
        if number in self._kept:
            return self._kept[number]
        if self._last is None or self._last[0] != number:
            self._last = None  # before the next is made, so that the two are never there together
            self._last = number, self._again(number)
        return self._last[1]


class _Recorded(Mapping[str, Array]):
    """One prompt's: names without a run, values with one."""

    def __init__(self, recordings: Recordings, number: int, sites: tuple[str, ...]) -> None:
        self._recordings, self._number, self._sites = recordings, number, sites

    def __getitem__(self, site: str) -> Array:
        if site not in self._sites:
            raise KeyError(site)
        return self._recordings[self._number][site]

    def __contains__(self, site: object) -> bool:
        return site in self._sites

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)
