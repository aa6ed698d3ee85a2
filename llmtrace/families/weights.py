"""From a checkpoint's tensors to schema weights. Each weight is arranged when it is asked for; what is missing is known before."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np
from attrs import field, frozen

from llmtrace.errors import ModelOpenError, shown
from llmtrace.families.native import Family, Native, arrange, native_of, stored_shape
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Weight, needed
from llmtrace.spec import ModelSpec, Sizes

FLOATS = ("float64", "float32", "float16", "bfloat16")


class Unread(Protocol):
    """A tensor that is still in its file: `numpy.asarray` reads it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Slowest axis first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its numbers, once read."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Its numbers."""


Tensor: TypeAlias = Array | Unread


@frozen
class Place:
    """Where one schema weight is stored."""

    native: Native
    names: tuple[str, ...]
    """Of the tensors; several are stacked along the first axis."""
    weight: Weight
    sizes: Sizes

    @property
    def stacked(self) -> bool:
        """Whether each tensor is one entry of the first axis."""
        return ".E." in self.native.name


@frozen(eq=False)
class Weights(Mapping[str, Array]):
    """Read-only schema weights by name, in their stored type; nothing is kept. Weights stored less one come in float32 at least."""

    places: Mapping[str, Place]
    tensors: Mapping[str, Tensor] = field(repr=False)

    def __getitem__(self, name: str) -> Array:
        place = self.places[name]
        wanted = place.weight.axes[1:] if place.stacked else place.weight.axes
        found = [
            arrange(np.asarray(self.tensors[one]), place.native.axes, wanted, place.sizes, place.native.piece)
            for one in place.names
        ]
        array = np.stack(found) if place.stacked else found[0]
        if place.native.plus:  # in 16 bits the sum would be rounded; runtimes add in float32 too
            array = array + np.float32(place.native.plus)
        array = array.view()
        array.flags.writeable = False
        return array

    def __contains__(self, name: object) -> bool:
        """Without reading it."""
        return name in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def weights_from(
    spec: ModelSpec,
    family: Family,
    tensors: Mapping[str, Tensor],
    where: str = "the checkpoint",
    said_by: str = "config.json",
) -> Weights:
    """Every weight that the model's steps read, from tensors by their native names, with or without the base model's prefix.

    Only names, shapes and types are looked at. `where` names the file in messages, `said_by` what the spec was made of.
    Raises `ModelOpenError` if a weight is missing, has another shape or is no floating-point number, or if a tensor is there that no
    equation reads.
    """
    known = canonical(family, tensors)
    places: dict[str, Place] = {}
    for weight, sizes in needed(spec):
        places[weight.name] = _place(spec, family, weight, sizes, known, tensors, where, said_by)
    read = {name for place in places.values() for name in place.names}
    for native, name in known.items():
        if name not in read and not _excused(spec, family, native):
            raise ModelOpenError(
                f"{shown(name)} is in {where}, and no equation of a {spec.family} model reads it."
                f"{_beyond(native, len(spec.blocks), said_by)}"
            )
    return Weights(places, tensors)


def _beyond(native: str, blocks: int, said_by: str) -> str:
    """What is likely the cause where a tensor is of a block that the spec does not have."""
    number = re.search(r"(?:^|\.)(\d+)\.", native)
    if number is None or int(number[1]) < blocks:
        return ""
    return (
        f" It is of block {number[1]}, and {said_by} says that there are {blocks} (from 0 to {blocks - 1}): "
        "its number of layers, num_hidden_layers or the like, is likely wrong."
    )


def stored_as(spec: ModelSpec, weight: str) -> str:
    """The weight in whose place one is stored: of a tied model, the embedding is the unembedding too."""
    return "embed.W_E" if weight == "unembed.W_U" and spec.unembed.tied else weight


def canonical(family: Family, names: Iterable[str]) -> dict[str, str]:
    """The family's own names to those in the checkpoint: old names renewed, and the base model's prefix added where it lacks."""
    renewed: dict[str, str] = {}
    for name in names:
        own = name
        for pattern, new in family.renames:
            own = re.sub(pattern, new, own)
        renewed[own] = name
    if any(own.startswith(family.prefix) for own in renewed):
        return renewed
    heads = ("lm_head.", "embed_out.")
    return {own if own.startswith(heads) else family.prefix + own: name for own, name in renewed.items()}


def _place(
    spec: ModelSpec,
    family: Family,
    weight: Weight,
    sizes: Sizes,
    known: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    where: str,
    said_by: str,
) -> Place:
    count = min(weight.shape[0], len(known) + 1)  # one more than there are is missed as soon
    native, natives = native_of(family, stored_as(spec, weight.name), count)
    for one in natives:
        if one not in known:
            raise ModelOpenError(f"{where} lacks {one}, which {weight.name} of this {spec.family} model is read from.")
        array, shape = tensors[known[one]], stored_shape(native.axes, sizes)
        if array.shape != shape:
            raise ModelOpenError(
                f"{shown(known[one])} in {where} has shape {list(array.shape)}, not {list(shape)} as {said_by} says."
            )
        if array.dtype.name not in FLOATS:
            raise ModelOpenError(
                f"{shown(known[one])} in {where} is stored as {array.dtype.name}, not as floating-point numbers."
            )
    return Place(native, tuple(known[one] for one in natives), weight, sizes)


def _excused(spec: ModelSpec, family: Family, native: str) -> bool:
    """Masks and tables, and the head of a model that uses its embedding for it."""
    if spec.unembed.tied and native == family.weights["unembed.W_U"].name:
        return True
    return any(re.search(pattern, native) for pattern in family.unread)


def first_non_finite(weights: Mapping[str, Array]) -> str | None:
    """The first weight that holds NaN or infinity, if one does. Reads them all, one at a time."""
    return next((name for name, array in weights.items() if not np.isfinite(array).all()), None)
