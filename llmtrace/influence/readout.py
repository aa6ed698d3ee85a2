"""From the last residual stream to logits: the final norm and the unembedding. **Readout**: what turns a stream vector into logits.

`logits = softcap(scale · (norm_f(x) W_U + b_U))`; methods that part a logit treat σ_f as fixed, the lens recomputes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from attrs import frozen

from llmtrace.errors import UnsupportedModelError
from llmtrace.influence.paths import weight
from llmtrace.schema import norm
from llmtrace.schema.evaluate import Equations
from llmtrace.schema.functions import softcap
from llmtrace.schema.sites import Array
from llmtrace.spec import ModelSpec

CHUNK = 1 << 24
"""Numbers of `W_U` that are widened to double precision at a time."""


@frozen(eq=False)
class Readout:
    """The weights behind the last stream point, read once."""

    spec: ModelSpec
    W_U: Array
    """[d_model vocab], in the type of the file."""
    b_U: Array | None  # noqa: N815  (as everywhere in the field)
    w: Array | None
    """The final norm's weight, [d_model]."""
    b: Array | None

    @classmethod
    def of(cls, equations: Equations) -> Readout:
        """Read what a model has. Raises `CapabilityError` where weights are not at hand."""
        spec = equations.spec
        if spec.head is not None:
            raise UnsupportedModelError(
                f"In this {spec.family} model another matrix and an activation stand between the final norm and the unembedding: no vector of "
                "the stream is read as logits by one map, and a logit is no sum over the stream. Attention and rollout can be had."
            )
        if "unembed.W_U" not in equations.weights:
            weight(equations, "unembed.W_U")  # raises
        return cls(
            spec,
            np.asarray(equations.weights["unembed.W_U"]),
            weight(equations, "unembed.b_U") if spec.unembed.bias else None,
            weight(equations, "ln_final.w") if spec.ln_final.weight else None,
            weight(equations, "ln_final.b") if spec.ln_final.bias else None,
        )

    @property
    def cap(self) -> float | None:
        """The softcap of the logits."""
        return self.spec.unembed.softcap

    def columns(self, ids: Sequence[int]) -> Array:
        """Columns of `W_U` times the logit scale, one a row: [token d_model] in float64."""
        return self.spec.unembed.scale * self.W_U[:, list(ids)].T.astype(np.float64)

    def directions(self, ids: Sequence[int], foil: int | None = None) -> Array:
        """`w_f ⊙ W_U[:, t]` (less the foil's), centred under layer norm: a logit's gradient times σ_f, σ_f fixed; [token d_model]."""
        u = self.columns(ids) - (0 if foil is None else self.columns([foil]))
        u = u if self.w is None else u * self.w
        return u - u.mean(-1, keepdims=True) if self.spec.ln_final.centred else u

    def biases(self, target: int, foil: int | None) -> Mapping[str, float]:
        """What the final norm's bias and the unembedding's bias add to the target's logit (less the foil's)."""
        added = {}
        if self.b is not None:
            u = self.columns([target])[0] - (0 if foil is None else self.columns([foil])[0])
            added["ln_final.b"] = float(u @ self.b)
        if self.b_U is not None:
            difference = self.b_U[target] - (0 if foil is None else self.b_U[foil])
            added["unembed.b_U"] = self.spec.unembed.scale * float(difference)
        return added

    def logits(self, stream: Array) -> Array:
        """Stream vectors as logits, [row d_model] to [row vocab] in float64: norm, unembedding, scale, softcap."""
        x = norm.apply(self.spec.ln_final, stream.astype(np.float64), self.w, self.b)
        found = np.empty((len(x), self.W_U.shape[1]))
        width = max(1, CHUNK // len(self.W_U))
        for first in range(0, found.shape[1], width):
            found[:, first : first + width] = x @ self.W_U[:, first : first + width].astype(np.float64)
        if self.b_U is not None:
            found += self.b_U
        return softcap(self.spec.unembed.scale * found, self.cap)


def uncapped(logits: Array, cap: float | None) -> Array:
    """Logits before the softcap, `cap · atanh(y / cap)`; infinite where the capture rounded to the cap itself."""
    y = np.asarray(logits, np.float64)
    if cap is None:
        return y
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(y) < cap, cap * np.arctanh(y / cap), np.sign(y) * np.inf)
