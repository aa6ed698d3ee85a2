"""Where weights lie in a model's memory. **Place**: for each number of a weight, which number of which parameter it is.

How a weight is made of parameters is a function: transposed, split into heads, sliced, plus one. What it does is seen by giving it the numbers of the
places themselves: `0, 1, 2, …` in place of what the parameters hold. What comes out are the places, unless numbers were computed with; then what
is read of the parameters themselves is not what lies there, and the weight has no place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from attrs import frozen

from llmtrace.dataflow.constants import Source
from llmtrace.errors import LLMTraceError
from llmtrace.schema.sites import Array
from llmtrace_torch.arrays import as_numpy
from llmtrace_torch.tape.filed import Filed

ROUNDED = 2.0**-23
"""What adding a constant in float32 may change a number by, relative."""


@frozen(eq=False)
class Place:
    """Where one weight lies."""

    parts: Mapping[str, tuple[torch.Tensor | None, torch.Tensor]]
    """Parameter to which numbers of the weight lie in it (None: all), and where; both counted in order."""
    plus: Array | None = None
    """What is added to what lies there: 1 of a norm that is stored less one."""

    def numbers(self, leaf: str, weight: Array, like: torch.Tensor) -> torch.Tensor:
        """What is to lie in a parameter for the weight to be this one, in the order of its places and in the parameter's type."""
        given = weight.astype(np.float64) - self.plus if self.plus is not None else weight
        wide = np.array(given, np.float64 if given.dtype == np.float64 else np.float32, order="C").reshape(-1)
        numbers, chosen = torch.from_numpy(wide), self.parts[leaf][0]
        return (numbers if chosen is None else numbers[chosen]).to(like.device, like.dtype)


class Places:
    """Those of a model's weights, found when they are first asked for."""

    def __init__(self, weights: Mapping[str, Source], filed: Filed, leaves: Mapping[str, torch.Tensor]) -> None:
        self.leaves = leaves
        self._weights, self._filed = weights, filed

    def __getitem__(self, name: str) -> Place:
        """Looked for each time: kept, places would take as much memory as the model."""
        found = self._look(name, sorted(self._reads[name]))
        if found is None:
            raise KeyError(name)
        return found

    def leaves_of(self, name: str) -> frozenset[str]:
        """The parameters that a weight is read from."""
        return self._reads[name]

    def read_as_they_work(self, names: Sequence[str]) -> dict[str, Array]:
        """Copies of weights, as they lie in memory."""
        with self._in_memory():
            return {name: np.array(self._weights[name].read()) for name in names}

    @property
    def refused(self) -> Mapping[str, str]:
        """Weights that have no place of their own, and why."""
        return self._all[0]

    @property
    def tied(self) -> tuple[frozenset[str], ...]:
        """Weights that have places in common."""
        return self._all[1]

    @cached_property
    def _all(self) -> tuple[dict[str, str], tuple[frozenset[str], ...]]:
        readers: dict[str, list[str]] = {}
        for name, leaves in self._reads.items():
            for leaf in leaves:
                readers.setdefault(leaf, []).append(name)
        several = {leaf for leaf, those in readers.items() if len(those) > 1}
        owners = {leaf: np.zeros(self.leaves[leaf].numel(), np.int32) for leaf in several}
        names = list(self._reads)
        refused: dict[str, str] = {}
        groups: list[set[str]] = []
        for number, name in enumerate(names):
            made_of = sorted(self._reads[name])
            place = self._look(name, made_of)
            if place is None or not self._is_there(place, name):
                computed = f"it is computed from {', '.join(made_of)}, and that cannot be undone exactly"
                refused[name] = computed if made_of else "it is no tensor of the model"
                continue
            met = {name}
            for leaf in several & self._reads[name]:
                at = place.parts[leaf][1].numpy()
                met |= {names[owner - 1] for owner in np.flatnonzero(np.bincount(owners[leaf][at])) if owner}
                owners[leaf][at] = number + 1
            apart = [group for group in groups if not group & met]
            groups = [*apart, met.union(*(group for group in groups if group & met))]
        waiting = list(refused)
        for bad in waiting:  # which grows
            for name in (name for leaf in sorted(self._reads[bad]) for name in readers[leaf] if name not in refused):
                refused[name] = f"it lies in one tensor with {bad}, which would change too, and {refused[bad]}"
                waiting.append(name)
        tied = (frozenset(group - refused.keys()) for group in groups)
        return refused, tuple(group for group in tied if len(group) > 1)

    @cached_property
    def _reads(self) -> dict[str, frozenset[str]]:
        """Weight to the parameters that it is read from."""
        found: dict[str, frozenset[str]] = {}
        for name, source in self._weights.items():
            self._filed.asked.clear()
            with self._in_memory():
                source.read()
            found[name] = frozenset(self._filed.asked & self.leaves.keys())
        return found

    def _look(self, name: str, leaves: list[str]) -> Place | None:
        """What may be the place of a weight; None where it has none."""
        starts = np.cumsum([0, *(self.leaves[leaf].numel() for leaf in leaves)])
        counted = np.int32 if starts[-1] < np.iinfo(np.int32).max else np.int64
        read = self._weights[name].read
        try:
            at = np.asarray(read_with(self._filed, read, {
                leaf: np.arange(start, start + self.leaves[leaf].numel(), dtype=counted).reshape(self.leaves[leaf].shape)
                for leaf, start in zip(leaves, starts[:-1], strict=True)
            }))  # fmt: skip
            plus = None
            if at.dtype.kind == "f":
                nought = {leaf: np.zeros(self.leaves[leaf].shape, counted) for leaf in leaves}
                plus = np.asarray(read_with(self._filed, read, nought), np.float64)
                at = at - plus
        except (LLMTraceError, RuntimeError, TypeError, ValueError):  # it does what no whole number can be put through
            return None
        if not leaves or at.dtype.kind not in "if":
            return None
        whole = at if plus is None else np.rint(at).astype(np.int64)
        if not np.array_equal(whole, at) or not _once(whole, int(starts[-1])):
            return None
        parts = {
            leaf: _part(whole.reshape(-1), int(start), int(end))
            for leaf, start, end in zip(leaves, starts, starts[1:], strict=False)
        }
        return Place(parts, plus if plus is not None and plus.any() else None)

    def _is_there(self, place: Place, name: str) -> bool:
        """Whether what lies at a place is what is read of the weight."""
        with self._in_memory():
            held = np.asarray(self._weights[name].read())
        for leaf, (chosen, at) in place.parts.items():
            lies = as_numpy(self.leaves[leaf].take(at.to(self.leaves[leaf].device)))
            mine = _chosen(held, chosen)
            if place.plus is None:
                if not np.array_equal(lies.astype(mine.dtype, copy=False), mine, equal_nan=True):
                    return False
            elif not np.allclose(
                lies + _chosen(place.plus, chosen), mine.astype(np.float64), ROUNDED, 0.0, equal_nan=True
            ):
                return False
        return True

    @contextmanager
    def _in_memory(self) -> Iterator[None]:
        """Weights are read as they work, and not as the file has them."""
        before = self._filed.working
        self._filed.working = frozenset(self.leaves)
        try:
            yield
        finally:
            self._filed.working = before


def read_with(filed: Filed, read: Callable[[], Array], standing: Mapping[str, Array]) -> Array:
    """What a weight is read as, where arrays stand in the place of parameters."""
    filed.standing = standing
    try:
        return read()
    finally:
        filed.standing = {}


def _part(at: Array, start: int, end: int) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Of places among several parameters, those in one: which numbers lie there (None: all), and where."""
    mine = (at >= start) & (at < end)
    if mine.all():
        return None, torch.from_numpy((at - start).astype(np.int64))
    return torch.from_numpy(np.flatnonzero(mine)), torch.from_numpy((at[mine] - start).astype(np.int64))


def _chosen(weight: Array, chosen: torch.Tensor | None) -> Array:
    flat = weight.reshape(-1)
    return flat if chosen is None else flat[chosen.numpy()]


def _once(at: Array, total: int) -> bool:
    """Whether each of some places lies among so many, and stands there once."""
    if at.size and not 0 <= at.min() <= at.max() < total:
        return False
    seen = np.zeros(total, bool)
    seen[at] = True
    return int(np.count_nonzero(seen)) == at.size
