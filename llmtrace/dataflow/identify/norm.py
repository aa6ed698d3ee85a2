"""Norms, from what a piece makes of probes: whether it centres, over which axes, its eps, weight and bias.

All probes go into one call. **Base row**: entries of ±½, ±1, ±2, which scaled by powers of two are exact in every float type; a base row
at scale s divided by itself at scale 1 gives `s σ(1) / σ(s)`, in which the weight is no more and eps alone is unknown. The bias is what a
row of zeros becomes. Then the schema's equation is held to all rows, among them some that had no part in the fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from attrs import evolve, frozen

from llmtrace.dataflow.identify.eps import eps_of
from llmtrace.dataflow.identify.measured import FLOAT32, Piece, Unfit, double, floor, single, worst
from llmtrace.schema.norm import apply
from llmtrace.schema.sites import Array
from llmtrace.spec import Norm

BASES = 6
"""Base rows."""
SCALES = 2.0 ** -np.arange(0, 21)
"""Of the base rows: mean squares from about 2 down to 2e-12."""


@frozen(eq=False)
class FoundNorm:
    """A norm, and its weights as they were measured."""

    norm: Norm
    """Its numbers; `weight` is False where every weight measured 1, `bias` where every bias measured 0."""
    w: Array | None
    """The weight, over `each over`; None where `norm.weight` is False."""
    b: Array | None
    """The bias, over `each over`; None where `norm.bias` is False."""
    error: float
    """The largest deviation from the equation, in units of what rounding explains: at most 1."""


def find_norm(
    piece: Piece, width: int, *, candidates: Iterable[float] = (), unit: float = FLOAT32
) -> FoundNorm | Unfit:
    """The norm that a piece applies to the rows of `[token d_model]`. `candidates`: numbers that may be its eps."""
    rows = _probes(1, width)
    found = double(piece(single(rows[:, 0])))
    if found.shape != (len(rows), width):
        return Unfit(f"it makes {found.shape} of {len(rows)} rows of {width} channels")
    return _best(rows, found[:, None], [Norm(0.0), Norm(0.0, centred=True)], list(candidates), unit)


def find_head_norm(
    piece: Piece,
    heads: int,
    d_head: int,
    *,
    head: str = "head",
    candidates: Iterable[float] = (),
    unit: float = FLOAT32,
) -> FoundNorm | Unfit:
    """The norm that a piece applies to `[token head d_head]`: of each head by itself, or of their whole width.

    `head` is the name of the axis: `head` for q, `kv_head` for k. A norm of each head has one weight for all of them (`d_head`) or one a
    head (`each`), as measured.
    """
    rows = _probes(heads, d_head)
    found = double(piece(single(rows)))
    if found.shape != rows.shape:
        return Unfit(f"it makes {found.shape} of {len(rows)} rows of {heads} heads of {d_head} channels")
    kinds = [Norm(0.0, centred=centred, over="d_head", each=head) for centred in (False, True)]
    if heads > 1:
        kinds += [Norm(0.0, centred=centred, over=f"{head} d_head") for centred in (False, True)]
    return _best(rows, found, kinds, list(candidates), unit)


def _probes(groups: int, size: int) -> Array:
    """[row group channel]: zeros, base rows from scale 1 down, their negatives, and rows that only test."""
    rng = np.random.default_rng(0)
    sign = rng.choice([-1.0, 1.0], (BASES, groups, size))
    base = sign * rng.choice([0.5, 1.0, 2.0], sign.shape)
    base[0, :, :] += 2.0  # of a mean that is not nought
    scaled = (SCALES[:, None, None, None] * base).reshape(-1, groups, size)
    drawn = rng.normal(size=(6, groups, size)) * np.array([1, 1, 30, 8, 2**-6, 2**-11])[:, None, None]
    level = np.broadcast_to(np.array([2.0**-7, 1.0, -8.0])[:, None, None], (3, groups, size))
    rows = [np.zeros((1, groups, size)), scaled, -base, drawn, level]
    return double(
        np.concatenate(rows).astype(np.float16)
    )  # exact in every type but bfloat16, which rounds the tests only


def _best(rows: Array, found: Array, kinds: Sequence[Norm], candidates: list[float], unit: float) -> FoundNorm | Unfit:
    """The kind that holds; of several the first."""
    failed = []
    for kind in kinds:
        fit = _fit(kind, rows, found, candidates, unit)
        if isinstance(fit, FoundNorm):
            return fit
        failed.append(fit.why)
    return Unfit("; ".join(failed))


def _name(kind: Norm) -> str:
    return f"{'layer' if kind.centred else 'RMS'} norm over {kind.over}"


def _fit(kind: Norm, rows: Array, found: Array, candidates: list[float], unit: float) -> FoundNorm | Unfit:
    axes = tuple(range(-len(kind.over.split()), 0)) if rows.shape[1] > 1 else (-1,)
    usable = np.asarray(np.isfinite(found).all((-2, -1)))
    centred = rows - rows.mean(axes, keepdims=True) if kind.centred else rows
    if not usable[(centred != 0).any((-2, -1))].all():
        return Unfit(f"as {_name(kind)}: it gives numbers that are not finite")
    b = found[0] if usable[0] else (found[1 : BASES + 1] + found[1 + BASES * len(SCALES) :][:BASES]).mean(0) / 2
    spread = [
        array[1 : 1 + BASES * len(SCALES)].reshape(len(SCALES), BASES, *rows.shape[1:]) for array in (centred, found)
    ]
    eps = eps_of(spread[0][0], spread[1], b, SCALES, axes, candidates, unit)
    if isinstance(eps, Unfit):
        return Unfit(f"as {_name(kind)}: {eps.why}")
    scale = np.sqrt((centred**2).mean(axes, keepdims=True) + eps)
    sharp = np.flatnonzero((np.abs(rows).max((-2, -1)) >= 0.5) & (np.abs(centred).max((-2, -1)) > 0.1))
    z = centred[sharp] / scale[sharp]
    w = (z * (found[sharp] - b)).sum(0) / (z**2).sum(0)
    w, b, kind = _shared(kind, w, b, unit)
    norm = evolve(
        kind, eps=eps,
        weight=bool(np.abs(w - 1).max() > 8 * unit), bias=bool(np.abs(b).max() > 8 * unit * np.abs(w).max()),
    )  # fmt: skip
    own_w, own_b = (w if norm.weight else None), (b if norm.bias else None)
    shaped = [rows, found] if rows.shape[1] > 1 or kind.over != "d_model" else [rows[:, 0], found[:, 0]]
    if kind.over == "d_model":
        own_w, own_b = (None if own is None else own[0] for own in (own_w, own_b))
    checked = usable & (scale > 0).all((-2, -1))  # without eps, a norm of nothing is no number
    expected = apply(norm, shaped[0][checked], own_w, own_b)
    size = np.abs(rows).max(axes, keepdims=True) / np.where(scale > 0, scale, np.inf)
    noise = 16 * unit * (np.abs(w) * size + np.abs(b)) + floor(unit)
    error = worst(shaped[1][checked], expected, noise.reshape(shaped[0].shape)[checked])
    if error > 1:
        return Unfit(f"as {_name(kind)} with eps {eps:.6g}: it is off by {error:.3g} times what rounding explains")
    return FoundNorm(norm, own_w, own_b, error)


def _shared(kind: Norm, w: Array, b: Array, unit: float) -> tuple[Array, Array, Norm]:
    """One weight for all heads where all measured the same."""
    if not kind.each:
        return w, b, kind
    apart = max(float(np.abs(each - each.mean(0)).max()) for each in (w, b))
    if apart <= 16 * unit * float(max(np.abs(w).max(), np.abs(b).max())):
        return w.mean(0), b.mean(0), evolve(kind, each="")
    return w, b, kind
