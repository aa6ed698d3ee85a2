"""How an array in a dump is laid out, and how it becomes a signal. **Layout**: the names of its axes, in the file's order.

`token (head d_head)` is two axes, the second with the heads side by side in it, as einops writes it. `batch` counts sequences, of
which one is taken; `1` is an axis of length one. All other names are those of the site's own axes, each once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from attrs import frozen

from llmtrace.errors import DumpError
from llmtrace.schema.precision import ROUNDOFF
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Step

BATCH, ONE = "batch", "1"


class MisfitError(ValueError):
    """How an array does not fit its site, to follow the array's name in a message."""


@frozen
class Layout:
    """The axes of an array, each one name or several that are side by side in it, the last the fastest."""

    axes: tuple[tuple[str, ...], ...]
    """In the array's order."""

    def __str__(self) -> str:
        """As it is written."""
        return " ".join(_written(axis) for axis in self.axes)

    def names(self) -> list[str]:
        """The site's own axes among them, in this order."""
        return [name for axis in self.axes for name in axis if name not in (BATCH, ONE)]


def parse(text: str) -> Layout:
    """A layout as it is written. Raises `DumpError` where it is none.

    >>> parse("batch token (head d_head)").axes
    (('batch',), ('token',), ('head', 'd_head'))
    """
    axes: list[tuple[str, ...]] = []
    inside: list[str] | None = None
    for word in text.replace("(", " ( ").replace(")", " ) ").split():
        if word == "(" and inside is None:
            inside = []
        elif word == ")" and inside:
            axes.append(tuple(inside))
            inside = None
        elif word in ("(", ")"):
            raise DumpError(f"The axes {text!r:.80} have a bracket too many, or one with nothing in it.")
        elif inside is None:
            axes.append((word,))
        else:
            inside.append(word)
    layout = Layout(tuple(axes))
    if inside is not None:
        raise DumpError(f"The axes {text!r:.80} have a bracket that is not closed.")
    if any(BATCH in axis and len(axis) > 1 for axis in axes) or sum(BATCH in axis for axis in axes) > 1:
        raise DumpError(f"The axes {text!r:.80} have a batch that is no axis of its own.")
    return layout


def check(layout: Layout | None, step: Step) -> None:
    """Raise `DumpError` unless a layout, where there is one, names each axis of its site once."""
    if layout is None:
        return
    own = [axis for axis in step.axes if axis != ONE]
    if sorted(layout.names()) != sorted(own):
        raise DumpError(f"The axes '{layout}' are not those of {step.site}, which has {' '.join(own)}, each once.")


def assumed(step: Step, array: Array) -> Layout:
    """The site's own axes, behind a batch where the array has one axis more."""
    own = tuple((axis,) for axis in step.axes)
    return Layout(((BATCH,), *own) if array.ndim == len(own) + 1 else own)


def arranged(array: Array, layout: Layout, step: Step, tokens: int, sequence: int | None) -> Array:
    """The array as the site has it. Raises `MisfitError`, which says what was found and what was expected."""
    sizes = dict(zip(step.axes, step.shape(tokens), strict=True)) | {ONE: 1}
    lengths = [None if axis == (BATCH,) else math.prod(sizes[name] for name in axis) for axis in layout.axes]
    if array.ndim != len(lengths) or any(
        length not in (None, found) for length, found in zip(lengths, array.shape, strict=True)
    ):
        raise MisfitError(f"has shape {list(array.shape)} where {step.site} is {_expected(layout, sizes)}")
    axes = list(layout.axes)
    if (BATCH,) in axes:
        place = axes.index((BATCH,))
        array = array[(slice(None),) * place + (chosen(array.shape[place], sequence),)]
        del axes[place]
    names = layout.names()
    split = array.reshape([sizes[name] for name in names])
    order = [names.index(axis) for axis in step.axes if axis != ONE]
    return split.transpose(order).reshape(step.shape(tokens))


def chosen(sequences: int, wanted: int | None) -> int:
    """Which of so many sequences is taken. Raises `MisfitError` where nobody said, or there is none."""
    if sequences == 1:
        return 0
    if wanted is None:
        raise MisfitError(f"holds {sequences} sequences: choose one (sequence=, --sequence)")
    if not 0 <= wanted < sequences:
        raise MisfitError(f"holds {sequences} sequences, and none of them is number {wanted} (they count from 0)")
    return wanted


def with_mask(array: Array, step: Step) -> Array:
    """Scores with -inf where they hold the least number of their type, as transformers' eager attention masks; others as they are."""
    if step.equation.name != "scores" or array.dtype.name not in ROUNDOFF:
        return array
    finfo: Any = ml_dtypes.finfo  # typed nowhere; NumPy's does not know bfloat16
    hidden = array == finfo(array.dtype).min
    return np.where(hidden, np.array(-np.inf, array.dtype), array) if hidden.any() else array


def _written(axis: tuple[str, ...]) -> str:
    return axis[0] if len(axis) == 1 else f"({' '.join(axis)})"


def _expected(layout: Layout, sizes: Mapping[str, int]) -> str:
    """`[token=5 (head d_head)=64]`"""
    said = [
        _written(axis) + ("" if axis in ((BATCH,), (ONE,)) else f"={math.prod(sizes[name] for name in axis)}")
        for axis in layout.axes
    ]
    return f"[{' '.join(said)}]"
