"""From a vertex's array to a signal of the schema, and back: heads split, a piece cut out, padding left out, pairs of channels put into
halves, a factor undone. No value is rounded on the way but by the factor.
"""

from __future__ import annotations

import numpy as np

from llmtrace.families.native import arrange, stored_shape
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Step
from llmtrace_llamacpp.sites import Place


def signal(array: Array, place: Place, step: Step, rows: range) -> Array:
    """A signal's rows, from what a vertex holds of them; keys up to the last row. A view where it can be."""
    value = _view(array, place, step, rows)
    if place.pairs:
        value = _moved(value, (-1, 2))
    return value / np.float32(place.divisor) if place.divisor != 1.0 else value


def put(value: Array, array: Array, place: Place, step: Step, rows: range) -> None:
    """The other way round: write a signal's rows into the array of its vertex."""
    if place.divisor != 1.0:
        value = value * np.float32(place.divisor)
    if place.pairs:
        value = _moved(value, (2, -1))
    _view(array, place, step, rows)[...] = value


def recipe(place: Place) -> str:
    """What `signal` does, in words; empty where it takes the array as it is."""
    done = [
        ("|" in place.axes, "a piece of a fused product"),
        ("head d_" in place.axes and "|" not in place.axes, "heads split"),
        (place.pairs, "neighbouring channels of a head moved into halves, where the checkpoint has them"),
        (place.axes.endswith("key"), "padding of the keys cut off"),
        (place.divisor != 1.0, f"divided by {place.divisor:.9g}"),
    ]
    return ", ".join(words for is_so, words in done if is_so)


def _view(array: Array, place: Place, step: Step, rows: range) -> Array:
    sizes = dict(step.sizes) | {"token": len(rows), "query": len(rows)}
    padded = array.size // (sizes["head"] * len(rows)) if place.axes.endswith("key") else 0
    native = array.reshape(stored_shape(place.axes, sizes | {"key": padded}))
    native = native[..., : rows.stop] if padded else native
    return arrange(native, place.axes, step.axes, step.sizes, place.piece)


def _moved(value: Array, split: tuple[int, int]) -> Array:
    """The channels of each head in another order."""
    return value.reshape(*value.shape[:-1], *split).swapaxes(-1, -2).reshape(value.shape)
