"""Where weights are stored. **Native**: a tensor of the checkpoint, or a piece of one, with its axes as they stand there.

The axes are written slowest first. `(head d_head) d_model` is one flattened axis and one plain one; `(d_mlp|d_mlp)` two pieces one
after the other in one axis, of which `piece` is wanted; `(head 1|1|1 d_head)` three pieces interleaved. `head:kv_head` is a part of
`head`, as long as `kv_head`; neighbouring parts are merged: `(head:kv_head head:group|1|1 d_head)`. What the weight should look
like, the equations already say. Captured activations are split by the same grammar.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import groupby
from math import prod
from typing import Any

from attrs import field, frozen

from llmtrace.errors import ModelOpenError, UnsupportedModelError
from llmtrace.families.config import Config
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import any_layer, layer_of
from llmtrace.spec import ModelSpec


@frozen
class Native:
    """One row: `name` with `L` for the layer, and `E` for an index whose tensors are stacked along the weight's first axis."""

    name: str
    axes: str
    piece: int = 0
    plus: float = 0.0
    """Added to what is stored (Gemma stores its norm weights less one)."""


@frozen
class Family:
    """What LLMTrace knows of an architecture."""

    spec: Callable[[Config], ModelSpec]
    weights: Mapping[str, Native]
    """Schema weight, with `L` for the layer, to where it is stored; a row with a layer's number is for that layer only."""
    prefix: str = "model."
    """What the base model's tensors begin with; a checkpoint of the base model alone leaves it out."""
    defaults: Mapping[str, Any] = field(factory=dict)
    """Of `config.json`, where transformers has them."""
    spellings: Mapping[str, str] = field(factory=dict)
    """Our config key to the family's own."""
    variant: Callable[[Config], Mapping[str, Native]] | None = None
    """The rows where they depend on the config."""
    part: str = ""
    """The key of the text model's config, in a config of several models."""
    renames: tuple[tuple[str, str], ...] = ()
    """Regular expressions of old tensor names, and what to put instead."""
    unread: tuple[str, ...] = (r"(^|\.)rotary_emb\.inv_freq$",)
    """Regular expressions of tensors that are no weights: masks, tables."""


def row_of(family: Family, weight: str) -> Native | None:
    """The row of a schema weight, that of its own layer before that of any; None if the family has none."""
    return family.weights.get(weight) or family.weights.get(any_layer(weight))


def native_of(family: Family, weight: str, count: int = 1) -> tuple[Native, list[str]]:
    """The row of a schema weight such as `blocks.3.attn.W_Q`, and the names of its tensors (`count` of them where they are stacked).

    Raises `UnsupportedModelError` if the family has no such row.
    """
    row, layer = row_of(family, weight), layer_of(weight)
    if row is None:
        raise UnsupportedModelError(
            f"The family's table has no row for {any_layer(weight)}, so {weight} cannot be found."
        )
    name = row.name if layer is None else row.name.replace(".L.", f".{layer}.")
    return row, [name.replace(".E.", f".{index}.") for index in range(count)] if ".E." in name else [name]


def arrange(array: Array, axes: str, wanted: tuple[str, ...], sizes: Mapping[str, int], piece: int = 0) -> Array:
    """Split, cut and order the axes of a stored tensor or of an activation: `(head d_head) d_model` to `[head d_model d_head]`.

    Axes that `sizes` lacks (tokens) take what is there, one in each group. A view where it can be; raises `ModelOpenError`
    if the array does not have such axes.
    """
    groups = _groups(axes)
    try:
        array = array.reshape(_fill([[_length(part, sizes) for part in group] for group in groups], array.shape))
    except ValueError as error:
        raise ModelOpenError(f"A tensor of shape {list(array.shape)} cannot be read as {axes!r}.") from error
    parts = [part for group in groups for part in group]
    names = [_own(part, piece) for part in parts]
    cut = tuple(_slice(part, sizes, piece) for part in parts)
    array = array[cut]
    kept = [(name.partition(":")[0], length) for name, length in zip(names, array.shape, strict=True) if name != "1"]
    merged = [(name, prod(length for _, length in same)) for name, same in groupby(kept, key=lambda pair: pair[0])]
    order = [name for name, _ in merged]
    plain = [axis for axis in wanted if axis != "1"]
    array = array.reshape([length for _, length in merged]).transpose([order.index(axis) for axis in plain])
    return array.reshape(_with_ones(wanted, array.shape)) if "1" in wanted else array


def stored_shape(axes: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of the tensor that `axes` describe."""
    return tuple(prod(_length(part, sizes) for part in group) for group in _groups(axes))


def _groups(axes: str) -> list[list[str]]:
    return [group.strip("()").split() for group in re.findall(r"\([^)]*\)|\S+", axes)]


def _length(part: str, sizes: Mapping[str, int]) -> int:
    """How long an axis is, all its pieces together; -1 where nobody says."""
    lengths = [_size(name, sizes) for name in part.split("|")]
    return -1 if -1 in lengths else sum(lengths)


def _size(name: str, sizes: Mapping[str, int]) -> int:
    key = name.rpartition(":")[2]
    if key.isdigit():
        return int(key)
    if key == "group" and key not in sizes:
        return sizes["head"] // sizes["kv_head"]
    whole = sizes.get(name.partition(":")[0], -1)
    if key.startswith("/"):
        return whole // int(key[1:])
    return sizes.get(key, -1)


def _own(part: str, piece: int) -> str:
    """The name of the wanted piece."""
    return part.split("|")[piece] if "|" in part else part


def _slice(part: str, sizes: Mapping[str, int], piece: int) -> slice:
    if "|" not in part:
        return slice(None)
    lengths = [_size(name, sizes) for name in part.split("|")]
    start = sum(lengths[:piece])
    return slice(start, start + lengths[piece])


def _fill(groups: list[list[int]], shape: tuple[int, ...]) -> list[int]:
    """Lengths of all axes, an unknown one from the length of its group; a flat array fills them all at once."""
    if len(groups) != len(shape):
        return [length for group in groups for length in group]
    filled: list[int] = []
    for group, whole in zip(groups, shape, strict=True):
        known = prod(length for length in group if length != -1)
        filled += [whole // known if length == -1 else length for length in group]
        if prod(filled[len(filled) - len(group) :]) != whole:
            raise ValueError(f"{whole} is not {group}")
    return filled


def _with_ones(wanted: tuple[str, ...], shape: tuple[int, ...]) -> list[int]:
    lengths = iter(shape)
    return [1 if axis == "1" else next(lengths) for axis in wanted]
