"""Weights as in the file, for a session: read on access, and independent of the running model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from attrs import define, field

from llmtrace.families.native import Family
from llmtrace.families.weights import weights_from
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import needed
from llmtrace.spec import ModelSpec


@define(eq=False)
class LateWeights(Mapping[str, Array]):
    """Schema weights of a file that is read as a whole, when the first of them is asked for."""

    _spec: ModelSpec
    _family: Family
    _read: Callable[[], Mapping[str, Array]] = field(repr=False)
    """Gives the tensors by their native names."""
    _where: str = ""
    _weights: Mapping[str, Array] | None = field(default=None, init=False, repr=False)
    _names: dict[str, None] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._names = {weight.name: None for weight, _ in needed(self._spec)}

    def __getitem__(self, name: str) -> Array:
        """Raises `ModelOpenError` if the file lacks a weight, or has one that no equation reads."""
        if self._weights is None:
            if name not in self:
                raise KeyError(name)
            self._weights = weights_from(self._spec, self._family, self._read(), self._where)
        return self._weights[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@define(eq=False)
class Late(Mapping[str, str]):
    """A table that is made when it is first looked at."""

    _find: Callable[[], Mapping[str, str]] = field(repr=False)
    _found: Mapping[str, str] | None = field(default=None, init=False, repr=False)

    def _all(self) -> Mapping[str, str]:
        if self._found is None:
            self._found = self._find()
        return self._found

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())
