"""Weights of one block at a time. **Recent**: what was read last, of a block and of the ends; it is kept until a later block is asked for.

Reading is dear where a file is packed, and a comparison asks for each weight several times: its equation by either side, and by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from llmtrace.schema.evaluate import Weights
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import layer_of


class Recent(Mapping[str, Array]):
    """Other weights, of which those of the last block are remembered, and with them those of the ends that were read since."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._layer: int | None = None
        self._kept: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        layer = layer_of(name)
        if layer is not None and layer != self._layer:
            begins = self._layer is None or layer < self._layer  # of a run: its first block comes with the embeddings
            self._kept = {each: kept for each, kept in self._kept.items() if begins and layer_of(each) is None}
            self._layer = layer
        if name not in self._kept:
            self._kept[name] = np.asarray(self._weights[name])
        return self._kept[name]

    def __contains__(self, name: object) -> bool:
        return name in self._weights

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)
