"""Rotary embeddings whose frequencies change with the length of the prompt: where they begin to change, and how.

**Edge**: the longest prompt that is turned as short ones are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from attrs import evolve

from llmtrace.schema.sites import Array
from llmtrace.spec import DynamicNtk, LongRope, Rotary
from llmtrace_onnxruntime.identify.decimals import settle
from llmtrace_onnxruntime.identify.measured import FLOAT32, Unfit, double
from llmtrace_onnxruntime.identify.rotary import find_rotary, off_by

SHORT = 64
"""Positions of the first run."""


def find_rotary_by_length(
    run: Callable[[int], tuple[Array, Array]], longest: int, *, unit: float = FLOAT32
) -> Rotary | Unfit | None:
    """How positions turn q, from runs of prompts of any length up to the longest: q and what it became, each [token head d_head]; the q of a
    shorter run is the beginning of a longer one's.

    Two tables make a `LongRope` that changes at its edge; a base that grows beyond it, a `DynamicNtk`. What fits neither is `Unfit`.
    """
    short = min(SHORT, longest)
    near = run(short)[1]

    def alike(length: int) -> bool:
        """Whether a prompt of that length turns its first positions as a short one does: its q begins with the same numbers."""
        return bool(
            (np.abs(double(run(length)[1][:short]) - double(near)) <= 4 * unit * np.abs(double(near)).max()).all()
        )

    if alike(longest):
        return find_rotary(*run(longest), unit=unit)
    edge, beyond = short, longest
    while beyond - edge > 1:
        middle = (edge + beyond) // 2
        edge, beyond = (middle, beyond) if alike(middle) else (edge, middle)
    found = find_rotary(*run(edge), longer=run(longest), context=edge, unit=unit)
    if not isinstance(found, Rotary) or not isinstance(found.scaling, LongRope) or _turns(found, run(beyond), unit):
        return found
    grows = _growing(found, found.scaling, edge, longest)
    for length in (beyond, (beyond + longest) // 2, longest):
        if not _turns(grows, run(length), unit):
            return Unfit(f"its frequencies change at {edge} positions, and again further on, as none that is known")
    return grows


def _turns(rotary: Rotary, run: tuple[Array, Array], unit: float) -> bool:
    """Whether a rotary embedding makes of q what a run made."""
    return off_by(rotary, double(run[0]), double(run[1]), unit) <= 1


def _growing(found: Rotary, scaling: LongRope, edge: int, longest: int) -> Rotary:
    """With the base that reaches the longest run's frequencies: its last pair is slower by `factor · longest / edge - (factor - 1)`."""
    stretch = scaling.long[-1] / scaling.short[-1]
    factor = (stretch - 1) / (longest / edge - 1)
    return evolve(found, scaling=DynamicNtk(settle(factor, 1e-4 * factor), edge))
