"""Other weights in the model's own memory, and then what was there before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TypeVar

import torch

from llmtrace.dataflow.constants import Source
from llmtrace.errors import OptionError
from llmtrace.schema.sites import Array
from llmtrace_torch.tape.filed import Filed
from llmtrace_torch.tape.places import Places

K = TypeVar("K")
V = TypeVar("V")


class Later(Mapping[K, V]):
    """A mapping that is made when it is first looked into."""

    def __init__(self, make: Callable[[], Mapping[K, V]]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> Mapping[K, V]:
        return self._make()

    def __getitem__(self, key: K) -> V:
        return self._made[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


class Replacing:
    """What `SupportsReplacement` asks of a session."""

    def __init__(self, weights: Mapping[str, Source], filed: Filed, leaves: Mapping[str, torch.Tensor]) -> None:
        self._filed, self._places = filed, (places := Places(weights, filed, leaves))
        self.replaceable = Later(lambda: dict.fromkeys(name for name in weights if name not in places.refused))
        self.irreplaceable = Later(lambda: places.refused)
        self.tied = Later(lambda: dict.fromkeys(places.tied))

    @contextmanager
    def replaced(self, weights: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
        """Write weights into the parameters that they lie in, rounded to their type; at the end, write back what was there. Gives them as they
        then are; who reads the model's own weights meanwhile gets what was there before.

        Raises `OptionError`, before anything is written, for numbers that the type cannot hold, and for weights that lie in the same place and
        do not agree on what is to be there.
        """
        wanted, names = self._wanted(weights), list(weights)
        del weights  # they may be as large as the model
        before: dict[str, torch.Tensor] = {}
        kept = self._filed.kept
        try:
            for leaf in list(wanted):
                before[leaf] = self._places.leaves[leaf].clone()
                self._filed.kept = {leaf: before[leaf], **self._filed.kept}  # of several replacements the first one's
                self._places.leaves[leaf].copy_(wanted.pop(leaf))
            yield self._places.read_as_they_work(names)
        finally:
            for leaf, tensor in before.items():
                self._places.leaves[leaf].copy_(tensor)
            self._filed.kept = kept

    def _wanted(self, weights: Mapping[str, Array]) -> dict[str, torch.Tensor]:
        """What is to be in the parameters."""
        found: dict[str, torch.Tensor] = {}
        readers = Counter(leaf for name in weights for leaf in self._places.leaves_of(name))
        written: dict[str, list[tuple[str, torch.Tensor, torch.Tensor]]] = {}
        for name, weight in weights.items():
            place = self._places[name]
            for leaf, (_, at) in place.parts.items():
                if leaf not in found:
                    found[leaf] = self._places.leaves[leaf].clone()
                numbers, there = place.numbers(leaf, weight, found[leaf]), at.to(found[leaf].device)
                if not bool(torch.isfinite(numbers).all()):
                    kind = str(numbers.dtype).removeprefix("torch.")
                    raise OptionError(
                        f"{name} is to be replaced by numbers that are too large for {kind}, which the model has it in."
                    )
                found[leaf].put_(there, numbers)
                if readers[leaf] > 1:
                    written.setdefault(leaf, []).append((name, there, numbers))
        for leaf, parts in written.items():
            for name, there, numbers in parts:
                if not torch.equal(found[leaf].take(there), numbers):
                    others = ", ".join(other for other, _, _ in parts if other != name)
                    raise OptionError(
                        f"{name} and {others} lie in the same memory ({leaf}), and what is given of the two is not the same there: give the same "
                        "numbers, or leave them as they are."
                    )
        return found
