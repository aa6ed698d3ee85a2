"""Evaluating a site at some tokens only. **Row**: what a signal holds of one token (of scores and patterns: of one query).

A row of most values needs that row of their inputs and nothing else; which inputs are read across rows, the site table says (`across`).
"""

from __future__ import annotations

import numpy as np

from llmtrace.schema.evaluate import Equations, Signals
from llmtrace.schema.sites import INPUTS, Array
from llmtrace.schema.verify import token_axis


class LookingAtRows:
    """A `Look` that gives the chosen rows of whatever is asked for, each site evaluated once.

    `whole` are signals known at every row, with `tokens` and `positions`; `part` those known at the chosen rows. Ask only for sites
    whose span (`Equations.derivable(…, rows=)`) what is known suffices for.
    """

    def __init__(self, equations: Equations, whole: Signals, part: Signals, rows: tuple[int, ...]) -> None:
        self._equations = equations
        self._whole = equations.looking(whole)
        self._known = whole
        self._part = part
        self._rows = list(rows)
        self._memo: dict[str, Array] = {}

    def __call__(self, site: str) -> Array:
        """The chosen rows of a site or of an input, in the type that the equations compute in."""
        if site not in self._memo:
            self._memo[site] = self._found(site)
        return self._memo[site]

    def _found(self, site: str) -> Array:
        if site in INPUTS:
            return self._whole(site)[self._rows]
        step = self._equations.step(site)
        if site in self._part:
            return self._equations.cast(self._part[site])
        if site in self._known or set(step.inputs) <= set(step.across):
            return np.take(self._whole(site), self._rows, token_axis(step))
        return self._equations.evaluate(site, lambda name: (self._whole if name in step.across else self)(name))
