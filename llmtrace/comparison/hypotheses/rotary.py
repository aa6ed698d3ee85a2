"""Rotary: its base, its layout, its width, its scaling, its direction; or none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from attrs import evolve

from llmtrace.comparison.case import Case, Hypothesis
from llmtrace.comparison.hypotheses.fitting import fitted
from llmtrace.comparison.hypotheses.rounding import TYPES, rounded
from llmtrace.comparison.specs import said
from llmtrace.schema.rotary import frequencies, gain
from llmtrace.schema.sites import Array
from llmtrace.spec import Attention, Linear, Llama3, LongRope, Rotary, Yarn

SITES = ("attn.rot_q", "attn.rot_k")
BASES = (
    10_000.0,
    500_000.0,
    1_000_000.0,
    5_000_000.0,
    8_000_000.0,
    10_000_000.0,
    150_000.0,
    100_000.0,
    50_000.0,
    160_000.0,
    300_000.0,
)
"""Of published models."""
FACTORS = (2.0, 4.0, 8.0, 16.0, 32.0, 0.5, 0.25)
"""Of linear scaling."""
LLAMA3 = Llama3(8.0, 1.0, 4.0, 8192)
"""As Llama 3.1 has it."""


def _base(case: Case) -> Iterator[tuple[str, Array]]:
    if (rotary := _rotary(case)) is None:
        return
    for theta in BASES:
        yield f"rotary base {said(theta)} instead of {said(rotary.theta)}", _with(case, evolve(rotary, theta=theta))
    best = fitted(lambda theta: _error(case, evolve(rotary, theta=theta)), rotary.theta)
    yield (
        f"rotary base {best:,.6g} instead of {said(rotary.theta)} (fitted)",
        _with(case, evolve(rotary, theta=best)),
    )


def _rounded(case: Case) -> Iterator[tuple[str, Array]]:
    """Frequencies, angles or sines that were made, or cast, in half precision."""
    if (rotary := _rotary(case)) is None or case.step.record.norm_after_rotary:
        return
    positions = np.asarray(case.captured["positions"])
    right = frequencies(rotary, len(positions))
    angle = positions[:, None] * right
    for name, dtype in TYPES.items():
        cast = positions[:, None] * rounded(right, dtype)
        yield f"rotary frequencies rounded to {name}", _by(case, rotary, np.cos(cast), np.sin(cast))
        yield (
            f"rotary angles rounded to {name}",
            _by(case, rotary, np.cos(rounded(angle, dtype)), np.sin(rounded(angle, dtype))),
        )
        yield (
            f"sines and cosines of rotary rounded to {name}",
            _by(case, rotary, rounded(np.cos(angle), dtype), rounded(np.sin(angle), dtype)),
        )


def _by(case: Case, rotary: Rotary, cos: Array, sin: Array) -> Array:
    """Turned by given cosines and sines, [token width/2].

    A turn is linear in both: each pair's is worked out from what the equation gives without turning, and turned by a right angle.
    """
    attention = case.step.record
    x = case.predict(case.with_record(attention, evolve(attention, rotary=None)))
    half = rotary.width // 2
    first = slice(0, half) if rotary.layout == "half" else slice(0, rotary.width, 2)
    second = slice(half, rotary.width) if rotary.layout == "half" else slice(1, rotary.width, 2)
    c, s = (gain(rotary) * each[:, None] for each in (cos, sin))
    turned = x.copy()
    turned[..., first] = x[..., first] * c - x[..., second] * s
    turned[..., second] = x[..., second] * c + x[..., first] * s
    return turned


def _layout(case: Case) -> Iterator[tuple[str, Array]]:
    if (rotary := _rotary(case)) is not None:
        other: Literal["half", "interleaved"] = "interleaved" if rotary.layout == "half" else "half"
        yield f"rotary pairs {other} instead of {rotary.layout}", _with(case, evolve(rotary, layout=other))


def _width(case: Case) -> Iterator[tuple[str, Array]]:
    if (rotary := _rotary(case)) is None:
        return
    whole = case.step.sizes["d_head"]
    for width in sorted({whole, whole // 2, whole // 4, 3 * whole // 4} - {rotary.width}, reverse=True):
        if width and width % 2 == 0:
            yield f"rotary of {width} channels instead of {rotary.width}", _with(case, evolve(rotary, width=width))


def _scaling(case: Case) -> Iterator[tuple[str, Array]]:
    if (rotary := _rotary(case)) is None:
        return
    if rotary.scaling is not None:
        yield f"rotary without its scaling ({said(rotary.scaling)})", _with(case, evolve(rotary, scaling=None))
    if isinstance(rotary.scaling, Yarn | LongRope) and rotary.scaling.gain != 1:
        ungained = evolve(rotary.scaling, gain=1.0)
        yield "rotary scaling without its gain", _with(case, evolve(rotary, scaling=ungained))
    if isinstance(rotary.scaling, Yarn) and rotary.scaling.gain is not None:
        ungained = evolve(rotary.scaling, gain=None)
        yield "rotary scaling with the gain of its factor", _with(case, evolve(rotary, scaling=ungained))
    for factor in FACTORS:
        yield f"rotary positions divided by {factor:g}", _with(case, evolve(rotary, scaling=Linear(factor)))
    yield "rotary scaled as in Llama 3.1", _with(case, evolve(rotary, scaling=LLAMA3))


def _none(case: Case) -> Iterator[tuple[str, Array]]:
    attention = case.step.record
    if isinstance(attention, Attention) and attention.rotary is not None:
        yield "rotary is not applied", case.predict(case.with_record(attention, evolve(attention, rotary=None)))
        yield "rotary turns the other way", case.predict(put={"positions": -np.asarray(case.captured["positions"])})


def _rotary(case: Case) -> Rotary | None:
    return case.step.record.rotary if isinstance(case.step.record, Attention) else None


def _with(case: Case, rotary: Rotary) -> Array:
    attention = case.step.record
    return case.predict(case.with_record(attention, evolve(attention, rotary=rotary)))


def _error(case: Case, rotary: Rotary) -> float:
    return case.error(_with(case, rotary))[0]


ROWS = (
    Hypothesis("rotary-layout", SITES, _layout),
    Hypothesis("rounded-frequencies", SITES, _rounded),
    Hypothesis("rotary-base", SITES, _base),
    Hypothesis("rotary-scaling", SITES, _scaling),
    Hypothesis("rotary-width", SITES, _width),
    Hypothesis("no-rotary", SITES, _none),
)
