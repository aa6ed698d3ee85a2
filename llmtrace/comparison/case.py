"""What a hypothesis is asked about. **Case**: one divergent site of one run, with the candidate's own signals around it; **hypothesis**: a
row of data with a small function that says what the site would hold if its explanation were true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from llmtrace.comparison.specs import swapped
from llmtrace.schema.evaluate import Equations, Signals
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Step, layer_of
from llmtrace.schema.verify import distance, token_axis
from llmtrace.spec import ModelSpec


@frozen(slots=False, eq=False)
class Case:
    """One divergent site."""

    site: str
    """Its full name."""
    captured: Signals = field(repr=False)
    """The candidate's signals around it, whole, with `tokens` and `positions`."""
    reference: Equations = field(repr=False)
    """The reference's spec and weights, in float64."""
    own: Equations | None = field(repr=False)
    """The reference's spec with the candidate's weights; None where they cannot be read."""
    candidate: ModelSpec = field(repr=False)
    """What the candidate's own files say that it is."""
    tolerance: float
    """What rounding explains."""

    @property
    def step(self) -> Step:
        """The site's step, by the reference's spec."""
        return self.reference.steps[self.site]

    @property
    def found(self) -> Array:
        """The candidate's signal."""
        return self.captured[self.site]

    @property
    def layer(self) -> int | None:
        """The block that it stands in."""
        return layer_of(self.site)

    @cached_property
    def base(self) -> Equations:
        """The equations to change: with the candidate's own weights, where they can be read, so that coarse weights are no error."""
        return self.own or self.reference

    @cached_property
    def expected(self) -> Array:
        """What the equations give, unchanged."""
        return self.predict()

    def predict(
        self, spec: ModelSpec | None = None, put: Mapping[str, Array] | None = None, equations: Equations | None = None
    ) -> Array:
        """The site by the equations, with another spec or other inputs; float64, axes as the schema's."""
        used = equations or self.base
        if spec is not None:
            used = evolve(used, spec=spec)
        known = {name: array for name, array in {**self.captured, **(put or {})}.items() if name != self.site}
        return used.evaluate(self.site, used.looking(known))

    def with_record(self, old: Any, new: Any) -> ModelSpec:
        """The reference's spec with one record of this block, or of the ends, replaced."""
        spec = self.reference.spec
        if self.layer is None:
            return swapped(spec, old, new)
        blocks = list(spec.blocks)
        blocks[self.layer] = swapped(blocks[self.layer], old, new)
        return evolve(spec, blocks=tuple(blocks))

    def error(self, predicted: Array) -> tuple[float, float]:
        """How far the candidate's signal is from a prediction: of the whole, and of the worst token."""
        return distance(self.found, predicted, token_axis(self.step))


Try = Callable[[Case], Iterator[tuple[str, Array]]]
"""Yields explanations in words, each with what the site would hold."""


@frozen
class Hypothesis:
    """One family of explanations."""

    name: str
    """`rotary-base`."""
    sites: tuple[str, ...]
    """The ends of the names of the sites that it may explain: `attn.rot_q`; empty: every site."""
    tries: Try
    """What it tries. It may raise any `LLMTraceError`: it then explains nothing."""
    harmless: bool = False
    """Whether nothing downstream of it can differ in the same run."""

    def about(self, site: str) -> bool:
        """Whether it may explain a site."""
        return not self.sites or any(site == end or site.endswith("." + end) for end in self.sites)


def scalar_fit(found: Array, expected: Array) -> float | None:
    """The factor c of `found ≈ c · expected` by least squares over finite entries; None where there is nothing to fit."""
    if found.shape != expected.shape:
        return None
    seen = np.isfinite(expected) & np.isfinite(found)
    f, e = found[seen].astype(np.float64), expected[seen].astype(np.float64)
    size = float(e @ e)
    return float(f @ e) / size if size else None
