"""Weights that were read, kept while there is room. Beyond it, those of one block are: what was read last, of a block and of the ends, until a
later block is asked for.

Reading is dear where a file is packed, and a comparison asks for each weight several times: its equation by either side, itself, each prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from llmtrace.schema.evaluate import Weights
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import layer_of

ROOM = 1 << 30
"""Bytes of weights that are kept for good, where several prompts run: fresh memory costs as much as reading again once."""


class Recent(Mapping[str, Array]):
    """Other weights, remembered."""

    def __init__(self, weights: Weights, room: int) -> None:
        self._weights = weights
        self._room = room
        self._layer: int | None = None
        self._lasting: dict[str, Array] = {}
        self._passing: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        if name in self._lasting:
            return self._lasting[name]
        layer = layer_of(name)
        if layer is not None and layer != self._layer:
            begins = self._layer is None or layer < self._layer  # of a run: its first block comes with the embeddings
            self._passing = {each: kept for each, kept in self._passing.items() if begins and layer_of(each) is None}
            self._layer = layer
        if name in self._passing:
            return self._passing[name]
        found = np.asarray(self._weights[name])
        fits = found.nbytes <= self._room
        self._room -= found.nbytes if fits else 0
        (self._lasting if fits else self._passing)[name] = found
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._weights

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)
