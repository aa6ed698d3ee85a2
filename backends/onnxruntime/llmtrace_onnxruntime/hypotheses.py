"""What `llmtrace compare` asks of a candidate that diverges, besides what the core asks: whether sums of int8 products were cut off at 16 bits
(`saturating`), on the machine that ran it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from llmtrace.comparison.case import Case, Hypothesis
from llmtrace.schema.blocks import levels_in_tensor
from llmtrace.schema.sites import Array
from llmtrace.spec import Attention, Unembedding
from llmtrace_onnxruntime.int16_sums import excess

PRODUCTS = ("attn.q", "attn.k", "attn.v", "attn.out", "mlp.pre", "mlp.pre_linear", "mlp.out", "logits")
"""Sites that are one product, of what a graph can round, and a bias."""
WORDS = "the processor that ran it cuts off sums of int8 products at 16 bits (saturating=false sums all)"
FEW = 16
"""Columns of a matrix by which most are told that are not of 8 bits."""
WHOLE = 0.01
"""How far from a whole number a weight may be, in steps of its grid."""


def _cut_off(case: Case) -> Iterator[tuple[str, Array]]:
    read = _factors(case)
    if read is None:
        return
    name, rows, matrix = read
    levels, zero, step = levels_in_tensor(rows)
    if not step:
        return
    rounded = (levels - zero) * step
    whole = case.predict(put={name: rounded.reshape(case.captured[name].shape)})
    scale = step * (case.step.record.scale if isinstance(case.step.record, Unembedding) else 1.0)
    for numbers, steps in grids_of(matrix):
        lost = excess(levels.astype(np.int32), numbers) * steps * scale
        yield WORDS, whole - lost.reshape(whole.shape)


def grids_of(matrix: Array) -> Iterator[tuple[Array, Array]]:
    """What int8 levels [in, out] and steps [out] a matrix may be made of, of one step or one a column; none, if it is not of 8 bits.

    Levels are told from the least difference of two numbers, or from the largest, if that is 127; their zero is in the middle, or such that the least of
    all is -128.
    """
    some = matrix[:, :: max(1, matrix.shape[1] // FEW)]
    # most are floats: they are not all sorted to know that
    if some.shape != matrix.shape and not any(grids_of(some)):
        return
    for steps in _steps_of(matrix):
        numbers = np.rint(matrix / steps)
        if (np.abs(matrix / steps - numbers) > WHOLE).any():
            continue
        for zero in dict.fromkeys((0.0, -128 - numbers.min())):
            levels = numbers + zero
            if levels.min() >= -128 and levels.max() <= 127:
                yield levels.astype(np.int16), steps


def _steps_of(matrix: Array) -> Iterator[Array]:
    """The steps [out] that a matrix may have, each once."""
    seen: list[Array] = []
    for rows in (matrix.reshape(-1, 1), matrix):
        largest = np.abs(rows).max(0)
        apart = np.diff(np.sort(rows, 0), axis=0)
        least = np.where(apart > WHOLE * largest / 128, apart, np.inf).min(0, initial=np.inf)
        for number in (np.maximum(1, np.rint(largest / least)), 127):
            steps = np.broadcast_to(np.where(largest > 0, largest / number, 1.0), matrix.shape[1:])
            if not any(np.allclose(steps, each, rtol=WHOLE / 128, atol=0) for each in seen):
                seen.append(steps)
                yield steps


def _factors(case: Case) -> tuple[str, Array, Array] | None:
    """What a site multiplies: the name of the signal, its rows [token, in], and the matrix [in, out]; None where more happens than that."""
    record = case.step.record
    if (record.clip if isinstance(record, Attention) else getattr(record, "softcap", None)) is not None:
        return None
    matrices = [weight for weight in case.step.weights.values() if weight.name.rpartition(".")[2].startswith("W_")]
    if len(matrices) != 1:
        return None
    (weight,) = matrices
    for name in case.step.signals.values():
        if name in case.captured and name in case.reference.steps:
            axes = case.reference.steps[name].axes[1:]
            if sorted((*axes, *case.step.axes[1:])) == sorted(weight.axes):
                order = [weight.axes.index(axis) for axis in (*axes, *case.step.axes[1:])]
                rows = np.asarray(case.captured[name], np.float64)
                rows = rows.reshape(len(rows), -1)
                return name, rows, case.base.weight(weight).transpose(order).reshape(rows.shape[1], -1)
    return None


ROWS = (Hypothesis("sums-cut-off", PRODUCTS, _cut_off),)
