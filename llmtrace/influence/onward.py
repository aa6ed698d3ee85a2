"""What becomes of something in the residual stream until its end, along the stream alone. **Onward factor**: what a contribution is multiplied
by on that way, one number or one a channel: the product of what later sums carry on of the stream.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from attrs import frozen

from llmtrace.errors import UnsupportedModelError
from llmtrace.influence.paths import weight
from llmtrace.schema.evaluate import Equations
from llmtrace.schema.sites import Array
from llmtrace.spec import Carry, ModelSpec


@frozen(eq=False)
class Onward:
    """Of one model."""

    factors: Mapping[str, float | Array]
    """Contribution, or what enters the stream first, to its onward factor."""
    constant: Array
    """What biases on the stream come to at its end, [d_model]."""


def onward(equations: Equations, method: str) -> Onward:
    """The onward factors. Raises `UnsupportedModelError` where the stream goes through norms: it is not a sum of what was added to it."""
    refuse_normed(equations.spec, method)
    factors: dict[str, float | Array] = {}
    constant = np.zeros(equations.spec.d_model)
    here: float | Array = 1.0
    for layer, block in reversed(list(enumerate(equations.spec.blocks))):
        here = block.stream_scale * here
        for point, carry in (
            ("resid_post", block.carry_post), ("resid_mid", block.carry_mid), ("resid_pre", block.carry_pre),
        ):  # fmt: skip
            site = f"blocks.{layer}.{point}"
            if site not in equations.steps:
                continue
            factors |= dict.fromkeys(equations.steps[site].terms[1:], here)
            here = _before(equations, site, carry, here)
            if carry.bias:
                constant = constant + weight(equations, f"{site}.b") * here
    first = equations.steps["blocks.0.resid_pre"].terms[0]
    return Onward(factors | {first: here}, constant)


def _before(equations: Equations, site: str, carry: Carry, here: float | Array) -> float | Array:
    """The onward factor of what a sum carries on."""
    factor = carry.scale * here
    return factor * weight(equations, f"{site}.w") if carry.weight else factor


def refuse_normed(spec: ModelSpec, method: str) -> None:
    """Raise `UnsupportedModelError` if the stream goes through norms, as in post-norm blocks."""
    for layer, block in enumerate(spec.blocks):
        if block.carry_mid.reads or block.carry_post.reads:
            raise UnsupportedModelError(
                f"{method} parts what the residual stream adds up, and in block {layer} of this {spec.family} model the stream itself goes "
                "through a norm: its terms are no parts of what comes out. Raw attention, rollout and the lens can be had."
            )
